"""Writes a pool as a data set that Hugging Face `datasets` opens.

o1p export-pool --pool=pools/mine --out=data/mine
python -c "import datasets; print(datasets.load_dataset('data/mine'))"
"""

from dataclasses import dataclass
from pathlib import Path

from o1p_jax.stages import cli


@dataclass(frozen=True, kw_only=True)
class Arguments(cli.Flags):
    out: Path
    """The folder to be written."""
    pool: Path | None = None
    """The pool's folder; left out: the pool of `run`."""
    run: Path | None = None
    """A run that was trained from the pool, whose rewards and weights are added."""
    grades: str | None = None
    """Which grades, by their folder's name in the pool, or none; left out: the run's, or the only ones."""


def command(argv: list[str]) -> None:
    args = cli.parse(Arguments, argv, __doc__)
    from o1p_jax.stages.export_pool import export_pool

    export_pool(args.pool, args.out, args.run, args.grades)
    print(f"data set {args.out}")
