"""The command `o1p plan`, from a checkout; `python launch/plan.py --help` says what it does."""

from o1p_jax.commands.plan import command
from o1p_jax.stages import cli

if __name__ == "__main__":
    cli.main(command)
