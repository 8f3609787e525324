"""The command `o1p export-pool`, from a checkout; `python launch/export_pool.py --help` says what it does."""

from o1p_jax.commands.main import run

if __name__ == "__main__":
    run("export-pool")
