"""The whole job over several seeds, and what came out of each: does the method hold, or was it luck?

    python benchmarks/seeds.py --seeds=0,1,2 --mesh=8x1

Other flags are those of launch/train.py. Each seed has a run folder, RUN-seed0 and so on; finished ones are skipped.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from o1p_jax.evaluation.table import OVERALL
from o1p_jax.runtime.entry import main
from o1p_jax.runtime.errors import O1pError
from o1p_jax.stages import cli

ROOT = Path(__file__).parents[1]


def command(argv: list[str]) -> None:
    seeds, rest = cli.take_flag(argv, "seeds")
    cfg = cli.parse_run_config(rest)
    changes = []
    for seed in (seeds or "0,1,2").split(","):
        run = f"{cfg.run}-seed{seed}"
        done = subprocess.run([sys.executable, ROOT / "launch" / "train.py", *rest, f"--run={run}", f"--seed={seed}"])
        if done.returncode:
            raise O1pError(f"seed {seed} ended with exit code {done.returncode}")
        before, after = json.loads(Path(run, "evaluation", "report.json").read_text())["results"]
        levels = {OVERALL: (before["overall"], after["overall"])} | {
            level: (part, after["levels"][level]) for level, part in before["levels"].items()
        }
        changes.append([[_value(b, "tokens"), _value(a, "tokens"), _value(b, "accuracy"), _value(a, "accuracy")]
                        for b, a in levels.values()])  # fmt: skip
        print(f"seed {seed}: " + _line(np.array(changes[-1][0])))
    for level, figures in zip(levels, np.array(changes).mean(0), strict=True):
        print(f"mean of {len(changes)} seeds, level {level}: {_line(figures)}")


def _value(summary: dict, name: str) -> float:
    return summary[name]["value"]


def _line(figures: np.ndarray) -> str:
    tokens_before, tokens_after, before, after = figures
    return (
        f"tokens {tokens_before:.1f} -> {tokens_after:.1f} ({tokens_after / tokens_before - 1:+.1%}), "
        f"accuracy {before:.1%} -> {after:.1%} ({after - before:+.1%})"
    )


if __name__ == "__main__":
    main(command)
