"""Samples, grades and weighs K solutions of each problem: a pool that any number of runs can be trained from.

o1p presample --run=runs/mine
o1p presample --config=r1_distill_qwen_7b --pool=pools/r1_7b
"""

from dataclasses import dataclass
from pathlib import Path

from o1p_jax.runtime.progress import begin
from o1p_jax.runtime.traces import traces_in
from o1p_jax.stages import cli


@dataclass(frozen=True, kw_only=True)
class Arguments(cli.RunFlags):
    restart: str | None = None
    """Which earlier work may be set aside and made again where it was made otherwise: samples or training."""


def command(argv: list[str]) -> None:
    args, cfg = cli.parse_run(Arguments, argv, __doc__)
    folder = cfg.pool or cfg.run
    begin("pool" if cfg.pool else "run", folder)
    with traces_in(Path(folder)):
        from o1p_jax.stages.pipeline import samples_only

        samples_only(cfg, args.restart)
