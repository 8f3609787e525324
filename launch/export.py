"""The command `o1p export`, from a checkout; `python launch/export.py --help` says what it does."""

from o1p_jax.commands.export import command
from o1p_jax.stages import cli

if __name__ == "__main__":
    cli.main(command)
