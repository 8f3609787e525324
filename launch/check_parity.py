"""The command `o1p check-parity`, from a checkout; `python launch/check_parity.py --help` says what it does."""

from o1p_jax.commands.main import run

if __name__ == "__main__":
    run("check-parity")
