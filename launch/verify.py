"""The command `o1p verify`, from a checkout; `python launch/verify.py --help` says what it does."""

from o1p_jax.commands.main import run

if __name__ == "__main__":
    run("verify")
