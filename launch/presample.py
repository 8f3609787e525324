"""K solutions a problem, graded and weighed, in the run folder's Parquet shards.

python launch/presample.py --config=configs/embedded.py --run=runs/mine
"""

from o1p_jax.stages import cli


def command(argv: list[str]) -> None:
    cfg = cli.parse_run_config(argv)
    from o1p_jax.stages.pipeline import samples_only

    samples_only(cfg)


if __name__ == "__main__":
    cli.main(command)
