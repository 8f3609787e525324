"""The command `o1p train`, from a checkout; `python launch/train.py --help` says what it does."""

from o1p_jax.commands.main import run

if __name__ == "__main__":
    run("train")
