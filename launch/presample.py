"""The command `o1p presample`, from a checkout; `python launch/presample.py --help` says what it does."""

from o1p_jax.commands.presample import command
from o1p_jax.stages import cli

if __name__ == "__main__":
    cli.main(command)
