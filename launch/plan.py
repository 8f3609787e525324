"""Tells whether a run fits a pod, and how fast it could be: compiles the real step for chips that need not be there.

    python launch/plan.py --config=configs/qwq_32b.py --topology=v5p:4x4x4

`--topology` is a chip and the pod's shape: v5e:16x16, v5p:4x4x4, v6e:8x8, 7x:4x4x4, or h100:8x8 (hosts x GPUs). Other
flags are the run's own (`--mesh=fsdp:-1,tensor:4`, `--compute.remat=full`). `--problems_count`, `--solution_tokens`
(their mean) and `--price` (a chip's hour in dollars) are for the estimate of the whole job; `--json=FILE` writes all
figures down. `--sweep` weighs meshes, rematerialisation and rows for the pod by formula, and compiles the best six.
"""

import json
import math
from pathlib import Path

from o1p_jax.runtime.entry import main
from o1p_jax.runtime.errors import BadInput


def command(argv: list[str]) -> None:
    from o1p_jax.config.chips import Topology
    from o1p_jax.stages import cli

    topology, rest = cli.take_flag(argv, "topology")
    out, rest = cli.take_flag(rest, "json")
    numbers: dict[str, float | None] = {}
    for name in ("problems_count", "solution_tokens", "price"):
        text, rest = cli.take_flag(rest, name)
        numbers[name] = None if text is None else _positive(name, text)
    several = "--sweep" in rest
    cfg = cli.parse_run_config([flag for flag in rest if flag != "--sweep"])
    if topology is None:
        raise BadInput("--topology: missing; such as v5p:4x4x4 or h100:8x8")
    pod = Topology.parse(topology)
    if out is not None and not Path(out).absolute().parent.is_dir():
        raise BadInput(f"--json={out}: no such folder")
    from o1p_jax.planning.compile import lines, plan
    from o1p_jax.planning.sweep import sweep, table

    if several:
        print("\n".join(table(sweep(cfg, pod))))
        return
    found = plan(
        cfg,
        pod,
        problems=int(numbers["problems_count"] or cfg.problems.limit_train or 5000),
        solution_tokens=int(numbers["solution_tokens"] or 0) or None,
        price=numbers["price"],
    )
    print("\n".join(lines(found)))
    if out is not None:
        Path(out).write_text(json.dumps(found.as_dict(), indent=1))
    if not found.memory.fits:
        raise BadInput(
            f"{cfg.model} does not fit {pod}: take more chips, --compute.remat=full, or smaller microbatches"
        )


def _positive(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise BadInput(f"--{name}={text}: must be a positive number")
    return number


if __name__ == "__main__":
    main(command)
