"""Compares models: makes the table, and a report page beside the JSON that the page was drawn from.

    python launch/evaluate.py --models embedded runs/embedded --problems embedded:validation --out=evaluation

A model is a Hugging Face folder or name, `embedded`, or a run folder (its exported model); the first model is the base
of the others. Sampling, prompts and mesh are those of `--config` and its dotted flags (`--evaluation.temperature=0`).
With `--evaluation.sampler=server` the first model is asked of `--sampling.servers`, the others of
`--evaluation.servers` (docs/serving.md).
"""

from pathlib import Path

from o1p_jax.runtime.errors import BadInput
from o1p_jax.stages import cli


def command(argv: list[str]) -> None:
    models, rest = cli.take_values(argv, "models")
    problems, rest = cli.take_values(rest, "problems")
    out, rest = cli.take_flag(rest, "out")
    cfg = cli.parse_run_config(rest)
    if not models:
        raise BadInput("--models: name at least one model, such as --models embedded runs/embedded")
    from o1p_jax.stages.evaluate import evaluate

    evaluate(cfg, models, problems or [cfg.problems.test], Path(out or "evaluation"))


if __name__ == "__main__":
    cli.main(command)
