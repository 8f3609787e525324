"""The whole job: presample, grade, weigh, train, export, evaluate; what a run folder already holds is not done again.

python launch/train.py --mesh=8x1
python launch/train.py --config=configs/smollm2_135m.py --run=runs/mine --optim.learning_rate=1e-6
"""

from o1p_jax import cli


def command(argv: list[str]) -> None:
    cfg = cli.parse_run_config(argv)
    from o1p_jax.pipeline import whole_job

    whole_job(cfg)


if __name__ == "__main__":
    cli.main(command)
