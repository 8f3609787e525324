"""The command `o1p plan`, from a checkout; `python launch/plan.py --help` says what it does."""

from o1p_jax.commands.main import run

if __name__ == "__main__":
    run("plan")
