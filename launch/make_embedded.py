"""Makes the embedded model again, from nothing: tokenizer, weights, chat template.

    python launch/make_embedded.py --out=embedded_model

The folder in o1p_jax/embedded/model came from this command; it takes under two hours on two cores.
"""

from dataclasses import dataclass
from pathlib import Path

from o1p_jax import cli
from o1p_jax.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Arguments:
    out: str
    """The folder to write."""


def command(argv: list[str]) -> None:
    args = cli.parse(Arguments, argv)
    if Path(args.out).exists():
        raise BadInput(f"--out={args.out}: exists already; remove it or name another folder")
    from o1p_jax.embedded.pretrain import pretrain
    from o1p_jax.mesh import make_mesh

    pretrain(Path(args.out), make_mesh("1x1"))
    print(f"model {args.out}")


if __name__ == "__main__":
    cli.main(command)
