"""The command `o1p check-parity`, from a checkout; `python launch/check_parity.py --help` says what it does."""

from o1p_jax.commands.check_parity import command
from o1p_jax.stages import cli

if __name__ == "__main__":
    cli.main(command)
