"""The command `o1p evaluate`, from a checkout; `python launch/evaluate.py --help` says what it does."""

from o1p_jax.commands.evaluate import command
from o1p_jax.stages import cli

if __name__ == "__main__":
    cli.main(command)
