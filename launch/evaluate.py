"""The command `o1p evaluate`, from a checkout; `python launch/evaluate.py --help` says what it does."""

from o1p_jax.commands.main import run

if __name__ == "__main__":
    run("evaluate")
