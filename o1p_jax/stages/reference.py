"""The reference of reward and ratio where it is not the model that gave the samples: the model that another run began
from, and what that run's samples say of each problem.
"""

from pathlib import Path

from o1p_jax.config.saved import CONFIG, load_saved
from o1p_jax.config.text import fingerprint
from o1p_jax.config.tree import FIRST, LAST, RunConfig
from o1p_jax.data.shards import META
from o1p_jax.models.source import SourceModel, find_model
from o1p_jax.runtime.errors import BadInput
from o1p_jax.stages.weigh import read_weights


def reference_digest(cfg: RunConfig) -> str | None:
    """Returns the SHA-256, in hex, of all that the weights of the reference's run were made by; None without one."""
    run = _run_of(cfg)
    return None if run is None else fingerprint(read_weights(run / "weights").metadata)


def reference_means(cfg: RunConfig) -> dict[str, tuple[float, float]] | None:
    """Returns Lbar and Abar of the reference's samples by problem; None where those of the samples themselves count."""
    run = _run_of(cfg)
    if run is None:
        return None
    rows = read_weights(run / "weights").read().select(["problem_id", "ref_mean_len", "ref_acc"]).to_pylist()
    return {row["problem_id"]: (row["ref_mean_len"], row["ref_acc"]) for row in rows if row["ref_acc"] is not None}


def reference_model(cfg: RunConfig, source: SourceModel) -> SourceModel:
    """Returns the model whose probabilities are the ratio's denominator: by default `source`, which gave the samples.

    Raises BadInput where the reference is another kind of model.
    """
    run = _run_of(cfg)
    if run is None:
        return source
    then, commit = load_saved(run / CONFIG)
    found = find_model(then.model, commit or then.revision)
    if found.decoder != source.decoder:
        raise BadInput(f"reference={run}: began from {then.model}, another kind of model than model={cfg.model}")
    return found


def _run_of(cfg: RunConfig) -> Path | None:
    if cfg.reference in (FIRST, LAST):  # the rounds name a folder to each round that the first one is not
        return None
    run = Path(cfg.reference)
    if not (run / CONFIG).is_file() or not (run / "weights" / META).is_file():
        raise BadInput(f"reference={run}: must be {LAST}, {FIRST}, or the folder of a run that has weighed its samples")
    return run
