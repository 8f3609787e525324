"""Writes a pool as a data set that Hugging Face `datasets` opens.

    python launch/export_pool.py --pool=pools/mine --out=data/mine
    python -c "import datasets; print(datasets.load_dataset('data/mine'))"

`--run=runs/mine` adds that run's rewards and weights; of several gradings, `--grades` names one.
"""

from dataclasses import dataclass
from pathlib import Path

from o1p_jax.runtime.entry import main


@dataclass(frozen=True, kw_only=True)
class Arguments:
    out: Path
    """The folder to be written."""
    pool: Path | None = None
    """The pool's folder; left out: the pool of `run`."""
    run: Path | None = None
    """A run that was trained from the pool, whose rewards and weights are added."""
    grades: str | None = None
    """Which grades, by their folder's name in the pool, or none; left out: the run's, or the only ones."""


def command(argv: list[str]) -> None:
    from o1p_jax.stages import cli

    args = cli.parse(Arguments, argv)
    from o1p_jax.stages.export_pool import export_pool

    export_pool(args.pool, args.out, args.run, args.grades)
    print(f"data set {args.out}")


if __name__ == "__main__":
    main(command)
