"""Writes a run's newest checkpoint, or the one of --step, as a Hugging Face folder with a model card.

o1p export --run=runs/embedded/round-2 --out=hf_model
"""

from dataclasses import dataclass, field
from pathlib import Path

from o1p_jax.config.tree import ExportConfig
from o1p_jax.runtime.traces import traces_in
from o1p_jax.stages import cli


@dataclass(frozen=True, kw_only=True)
class Arguments(cli.Flags):
    run: str
    """The run folder."""
    out: str
    """The folder to write."""
    step: int | None = None
    """The step of the checkpoint; left out: the newest whole checkpoint."""
    export: ExportConfig = field(default_factory=ExportConfig)


def command(argv: list[str]) -> None:
    args = cli.parse(Arguments, argv, __doc__)
    run = Path(args.run)
    with traces_in(run):
        from o1p_jax.stages.pipeline import export_run

        export_run(run, Path(args.out), args.step, args.export.dtype)
