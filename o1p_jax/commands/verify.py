"""Reads everything in a run, a pool or a model folder, and tells what is no longer as it was written.

    o1p verify --run=runs/embedded
    o1p verify --pool=pools/mine --model=hf_model

Prints a line for each part, and ends with 65 if one is damaged.
"""

from dataclasses import dataclass
from pathlib import Path

from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.files import check_folder
from o1p_jax.stages import cli


@dataclass(frozen=True, kw_only=True)
class Arguments(cli.Flags):
    run: Path | None = None
    """A run folder; the pool that it was trained from is read too."""
    pool: Path | None = None
    """A pool's folder."""
    model: Path | None = None
    """A model's folder: one that o1p export wrote has checksums, of others only the headers can be read."""


def command(argv: list[str]) -> None:
    args = cli.parse(Arguments, argv, __doc__)
    for name in ("run", "pool", "model"):
        if (folder := getattr(args, name)) is not None:
            check_folder(name, folder)
    if args.run is None and args.pool is None and args.model is None:
        raise BadInput("--run, --pool or --model: name a folder")
    from o1p_jax.stages.verify import parts_of_model, parts_of_pool, parts_of_run, verify

    parts = parts_of_run(args.run) if args.run else []
    parts += parts_of_pool(args.pool, str(args.pool)) if args.pool else []
    parts += parts_of_model(args.model, str(args.model)) if args.model else []
    verify(parts)
