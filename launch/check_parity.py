"""Compares this project's decoder with that of transformers on your model, at short and at long positions.

python launch/check_parity.py --model=Qwen/Qwen3-0.6B
"""

from dataclasses import dataclass

from o1p_jax.runtime.entry import main
from o1p_jax.runtime.errors import CorruptData


@dataclass(frozen=True, kw_only=True)
class Arguments:
    model: str
    """A Hugging Face folder, or a name on the hub."""
    revision: str | None = None
    """Commit, tag or branch of the model on the hub."""


def command(argv: list[str]) -> None:
    from o1p_jax.stages import cli

    args = cli.parse(Arguments, argv)
    from o1p_jax import check_parity

    found = check_parity(args.model, args.revision)
    for row in found.rows:
        print(
            f"positions 0 to {row.span - 1:,}: greatest difference {row.difference:.1e}, KL {row.kl:.1e} nats, "
            f"top-1 agreement {row.top1:.2%}"
        )
    if not found.equal:
        raise CorruptData(f"{found.verdict}; please report it with the model's config.json")
    print(found.verdict)


if __name__ == "__main__":
    main(command)
