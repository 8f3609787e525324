"""Tells whether a run fits a pod, and how fast it could be: compiles the real step for chips that need not be there.

    o1p plan --config=qwq_32b --topology=v5p:4x4x4

The other flags are the run's own (--mesh=fsdp:-1,tensor:4, --compute.remat=full).
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from o1p_jax.config.chips import Topology
from o1p_jax.runtime.errors import BadInput
from o1p_jax.stages import cli

_SWEPT = ("mesh", "compute.remat")


@dataclass(frozen=True, kw_only=True)
class Arguments(cli.RunFlags):
    topology: str | None = None
    """A chip and the pod's shape: v5e:16x16, v5p:4x4x4, v6e:8x8, 7x:4x4x4, or h100:8x8 (hosts x GPUs)."""
    sweep: tyro.conf.FlagCreatePairsOff[bool] = False
    """Weighs meshes and rematerialisation for the pod by formula, and compiles the best six."""
    json: Path | None = None
    """A file for all figures; with --sweep, those of each plan."""
    problems_count: int | None = None
    """Number of problems of the whole job; left out: problems.limit_train, or 5,000."""
    solution_tokens: int | None = None
    """Mean length of a solution in tokens, sampling.max_tokens being the cap; left out: half of that. A pool that is
    named and not empty (--pool) tells the lengths itself.
    """
    price: float | None = None
    """A chip's hour in US dollars; left out: the chip's list price."""


def command(argv: list[str]) -> None:
    args, cfg = cli.parse_run(Arguments, argv, __doc__)
    if args.topology is None:
        raise BadInput("--topology: missing; such as v5p:4x4x4 or h100:8x8")
    pod = Topology.parse(args.topology)
    for name in ("problems_count", "solution_tokens", "price"):
        number = getattr(args, name)
        if number is not None and not 0 < number < math.inf:
            raise BadInput(f"--{name}={number}: must be a positive number")
    given = {argument.split("=")[0].removeprefix("--").replace("-", "_") for argument in argv}
    for name in _SWEPT if args.sweep else ():
        if name in given:
            raise BadInput(f"--{name}: is what --sweep chooses; leave out one of the two")
    if args.json is not None and not args.json.absolute().parent.is_dir():
        raise BadInput(f"--json={args.json}: no such folder")
    from o1p_jax.planning.compile import lines, plan
    from o1p_jax.planning.sweep import sweep, table

    problems = args.problems_count or cfg.problems.limit_train or 5000
    job: dict[str, Any] = {"problems": problems, "solution_tokens": args.solution_tokens, "price": args.price}
    found = sweep(cfg, pod, **job) if args.sweep else [plan(cfg, pod, **job)]
    print("\n".join(table(found) if args.sweep else lines(found[0])))
    if args.json is not None:
        figures = [p.as_dict() for p in found]
        args.json.write_text(json.dumps(figures if args.sweep else figures[0], indent=1))
    if not found[0].memory.fits:
        raise BadInput(
            f"{cfg.model} does not fit {pod}: take more chips, --compute.remat=full, or a smaller "
            "--batch.tokens_per_device"
        )
