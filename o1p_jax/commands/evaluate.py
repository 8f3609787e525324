"""Compares models: makes the tables, and a report page beside the JSON that the page was drawn from.

    o1p evaluate --models embedded runs/embedded --problems embedded:validation --out=evaluation

Sampling, prompts and mesh are those of the configuration (--evaluation.temperature=0).
"""

from dataclasses import dataclass
from pathlib import Path

from o1p_jax.runtime.errors import BadInput
from o1p_jax.stages import cli


@dataclass(frozen=True, kw_only=True)
class Arguments(cli.RunFlags):
    models: tuple[str, ...] = ()
    """Hugging Face folders or names, `embedded`, or run folders (their exported models); the first is the base."""
    problems: tuple[str, ...] = ()
    """Problem sets, as problems.test names one; left out: problems.test."""
    out: Path = Path("evaluation")
    """The folder of the report, and of the solutions behind it."""


def command(argv: list[str]) -> None:
    args, cfg = cli.parse_run(Arguments, argv, __doc__)
    if not args.models:
        raise BadInput("--models: name at least one model, such as --models embedded runs/embedded")
    from o1p_jax.stages.evaluate import evaluate

    evaluate(cfg, args.models, args.problems or cfg.problems.test, args.out)
