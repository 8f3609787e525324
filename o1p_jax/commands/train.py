"""Does the whole job: presample, grade, weigh, train, export, evaluate. What the run folder holds is not done again.

    o1p train --mesh=8x1
    o1p train --config=smollm2_135m --run=runs/mine --optim.learning_rate=1e-6

A run with a changed configuration goes on with all that the change does not touch; work that the change would throw
away stays, unless --restart has it set aside and made again. The same command on every host of a pod does the job
together: under SLURM and on TPUs without further flags, elsewhere with --coordinator, --processes and --process.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from o1p_jax.runtime.place import find_place
from o1p_jax.runtime.progress import begin
from o1p_jax.runtime.supervisor import in_worker, supervise
from o1p_jax.runtime.traces import traces_in
from o1p_jax.stages import cli


@dataclass(frozen=True, kw_only=True)
class Arguments(cli.RunFlags):
    restart: str | None = None
    """Which earlier work may be set aside and made again where it was made otherwise: samples or training."""
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    """Shows three prompts, one graded example, the shapes, steps and memory of the training, and writes nothing."""
    coordinator: str | None = None
    """HOST:PORT of process 0, in a job of several processes that is not started by srun or on a TPU pod."""
    processes: int | None = None
    """Number of the job's processes; 1: the process is alone, whatever its environment says."""
    process: int | None = None
    """This process's number, from 0."""


def command(argv: list[str]) -> None:
    place, _ = find_place(argv)
    args, cfg = cli.parse_run(Arguments, argv, __doc__)
    if args.dry_run:
        from o1p_jax.planning.dry_run import dry_run

        return dry_run(cfg)
    if not in_worker() and (place is None or place.index == 0):
        begin("run", cfg.run)
    if place and not in_worker():
        return supervise(place)
    with traces_in(Path(cfg.run)):
        from o1p_jax.stages.pipeline import whole_job

        whole_job(cfg, place, args.restart)
