"""Samples, grades and weighs K solutions of each problem: a pool that any number of runs can be trained from.

python launch/presample.py --config=configs/embedded.py --run=runs/mine
python launch/presample.py --config=configs/r1_distill_qwen_7b.py --pool=pools/r1_7b
"""

from pathlib import Path

from o1p_jax.runtime.entry import main
from o1p_jax.runtime.progress import begin
from o1p_jax.runtime.traces import traces_in


def command(argv: list[str]) -> None:
    from o1p_jax.stages import cli

    restart, argv = cli.take_flag(argv, "restart")
    cfg = cli.parse_run_config(argv)
    folder = cfg.pool or cfg.run
    begin("pool" if cfg.pool else "run", folder)
    with traces_in(Path(folder)):
        from o1p_jax.stages.pipeline import samples_only

        samples_only(cfg, restart)


if __name__ == "__main__":
    main(command)
