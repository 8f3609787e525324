"""A run's folder, and the checks that come before anything is written to it.

config.json      what the run was started with
rollouts/        presampled solutions, then graded/ and weighed/: Parquet shards
reference/       log-probabilities of the kept ones under the reference model
checkpoints/     training states; metrics.jsonl and tensorboard/ beside them
model/           the result, a Hugging Face folder
evaluation/      report.html, report.json, table.md and the rollouts behind them
"""

from pathlib import Path

from o1p_jax.config.text import flatten, from_dict, to_dict
from o1p_jax.config.tree import RunConfig
from o1p_jax.devices import processes
from o1p_jax.runtime.errors import BadInput, CorruptData
from o1p_jax.runtime.files import read_json, write_json

_MAY_CHANGE = (
    "run",
    "mesh",
    "checkpoint.",
    "sampling.servers",
    "sampling.timeout_s",
    "sampling.vllm.python",
    "sampling.vllm.replicas",
)
"""Fields in which a run may be continued with another value: they do not decide what comes out."""


def open_run(cfg: RunConfig) -> Path:
    """The run's folder, made if there is none. Raises BadInput that names a field in which it differs from `cfg`."""
    check_run(cfg)
    run = Path(cfg.run)
    if processes.leader():
        write_json(run / "config.json", to_dict(cfg))
    return run


def check_run(cfg: RunConfig) -> None:
    """Raises BadInput where the run's folder was made with another configuration, or isn't one; writes nothing."""
    run, path = Path(cfg.run), Path(cfg.run) / "config.json"
    if not path.exists():
        # Another process of the job may be writing config.json right now.
        if run.exists() and (not run.is_dir() or any(not f.name.startswith(".config.json") for f in run.iterdir())):
            if path.exists():  # it has written it
                return check_run(cfg)
            raise BadInput(f"run={run}: exists and is not a run folder; name another")
        return
    then, now = flatten(load_run_config(run)), flatten(cfg)
    for name, value in now.items():
        if then[name] != value and not name.startswith(_MAY_CHANGE):
            raise BadInput(f"run={run}: made with {name}={then[name]}, not {value}; set it back or name another folder")


def load_run_config(run: Path) -> RunConfig:
    """The configuration that the run in folder `run` was started with."""
    try:
        return from_dict(RunConfig, read_json(run / "config.json"))
    except BadInput as e:
        raise CorruptData(f"{run / 'config.json'}: {e}") from None
