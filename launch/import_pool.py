"""The command `o1p import-pool`, from a checkout; `python launch/import_pool.py --help` says what it does."""

from o1p_jax.commands.main import run

if __name__ == "__main__":
    run("import-pool")
