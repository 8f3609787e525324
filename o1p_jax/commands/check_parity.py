"""Compares this project's decoder with that of transformers on your model, at short and at long positions.

o1p check-parity --model=Qwen/Qwen3-0.6B
"""

from dataclasses import dataclass

from o1p_jax.runtime.errors import CorruptData
from o1p_jax.stages import cli


@dataclass(frozen=True, kw_only=True)
class Arguments(cli.Flags):
    model: str
    """A Hugging Face folder, or a name on the hub."""
    revision: str | None = None
    """Commit, tag or branch of the model on the hub."""


def command(argv: list[str]) -> None:
    args = cli.parse(Arguments, argv, __doc__)
    from o1p_jax.models.parity import check_parity

    found = check_parity(args.model, args.revision)
    for row in found.rows:
        print(
            f"positions 0 to {row.span - 1:,}: greatest difference {row.difference:.1e}, KL {row.kl:.1e} nats, "
            f"top-1 agreement {row.top1:.2%}"
        )
    if not found.equal:
        raise CorruptData(f"{found.verdict}; please report it with the model's config.json")
    print(found.verdict)
