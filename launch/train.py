"""Does the whole job: presample, grade, weigh, train, export, evaluate. What the run folder holds is not done again.

python launch/train.py --mesh=8x1
python launch/train.py --config=configs/smollm2_135m.py --run=runs/mine --optim.learning_rate=1e-6

--pool=pools/mine trains on other samples than the run's own. A run with a changed configuration goes on with all that
the change does not touch; work that the change would throw away stays, unless --restart=training (or samples) has it
set aside and made again.

The same command on every host of a pod does the job together: under SLURM and on TPUs without further flags,
elsewhere with --coordinator=HOST:PORT --processes=N --process=I (docs/processes.md).
"""

from pathlib import Path

from o1p_jax.runtime.entry import main
from o1p_jax.runtime.place import find_place
from o1p_jax.runtime.progress import begin
from o1p_jax.runtime.supervisor import in_worker, supervise
from o1p_jax.runtime.traces import traces_in


def command(argv: list[str]) -> None:
    from o1p_jax.stages import cli

    place, argv = find_place(argv)
    restart, argv = cli.take_flag(argv, "restart")
    cfg = cli.parse_run_config(argv)
    if not in_worker() and (place is None or place.index == 0):
        begin("run", cfg.run)
    if place and not in_worker():
        return supervise(place)
    with traces_in(Path(cfg.run)):
        from o1p_jax.stages.pipeline import whole_job

        whole_job(cfg, place, restart)


if __name__ == "__main__":
    main(command)
