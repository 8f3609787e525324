"""The command `o1p train`, from a checkout; `python launch/train.py --help` says what it does."""

from o1p_jax.commands.train import command
from o1p_jax.stages import cli

if __name__ == "__main__":
    cli.main(command)
