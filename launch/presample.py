"""The command `o1p presample`, from a checkout; `python launch/presample.py --help` says what it does."""

from o1p_jax.commands.main import run

if __name__ == "__main__":
    run("presample")
