"""Makes the embedded model again, from nothing: tokenizer, weights, chat template.

    python -m tools.make_embedded --out=embedded_model

The folder in o1p_jax/embedded/model came from this command; it takes under two hours on two cores.
"""

from dataclasses import dataclass
from pathlib import Path

from o1p_jax.runtime.entry import main
from o1p_jax.runtime.errors import BadInput
from o1p_jax.stages import cli


@dataclass(frozen=True, kw_only=True)
class Arguments:
    out: str
    """The folder to write."""


def command(argv: list[str]) -> None:
    args = cli.parse(Arguments, argv)
    if Path(args.out).exists():
        raise BadInput(f"--out={args.out}: exists already; remove it or name another folder")
    from o1p_jax.devices.mesh import make_mesh
    from tools.make_embedded.pretrain import pretrain

    pretrain(Path(args.out), make_mesh("1x1"))
    print(f"model {args.out}")


if __name__ == "__main__":
    main(command)
