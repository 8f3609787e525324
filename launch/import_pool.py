"""The command `o1p import-pool`, from a checkout; `python launch/import_pool.py --help` says what it does."""

from o1p_jax.commands.import_pool import command
from o1p_jax.stages import cli

if __name__ == "__main__":
    cli.main(command)
