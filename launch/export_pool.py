"""The command `o1p export-pool`, from a checkout; `python launch/export_pool.py --help` says what it does."""

from o1p_jax.commands.export_pool import command
from o1p_jax.stages import cli

if __name__ == "__main__":
    cli.main(command)
