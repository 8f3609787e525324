"""The command `o1p compare`, from a checkout; `python launch/compare.py --help` says what it does."""

from o1p_jax.commands.main import run

if __name__ == "__main__":
    run("compare")
