"""What a job's results are made by: samples, grades, weights, training and evaluation, each on top of the last.

The identity of a result is a flat dict of JSON values: dotted names of fields, and digests of contents. Results with
the same identity are the same. Problems, models and a user's own functions count by their contents, not by their names.
"""

from typing import Any

from o1p_jax.config.stages import fields_of
from o1p_jax.config.text import fingerprint
from o1p_jax.config.tree import GradingConfig, RunConfig
from o1p_jax.data.prompts import PromptSet
from o1p_jax.grading.grader import source_digest as grader_digest
from o1p_jax.methods.own_reward import source_digest as reward_digest
from o1p_jax.models.source import SourceModel
from o1p_jax.runtime.fields import EVALUATION, GRADES, SAMPLES, TRAINING, WEIGHTS
from o1p_jax.stages.reference import reference_digest

Identity = dict[str, Any]

_BY_CONTENT = ("problems.", "grading.")


def key(identity: Identity) -> str:
    """Returns the SHA-256, in hex, of an identity."""
    return fingerprint(identity)


def of_samples(cfg: RunConfig, source: SourceModel, prompts: PromptSet) -> Identity:
    """Returns the identity of the training problems' samples."""
    fields = _without_contents(fields_of(cfg, SAMPLES))
    del fields["seed"]
    return {"model_sha256": source.digest, **prompts.identity, **fields, "sampling.seed": cfg.sampling_seed}


def of_evaluation(cfg: RunConfig, source: SourceModel, prompts: PromptSet) -> Identity:
    """Returns the identity of the samples that one model gives on one set of test problems."""
    fields = _without_contents(fields_of(cfg, EVALUATION)) | {"sampling.sampler": cfg.evaluation_sampler}
    del fields["evaluation.sampler"]
    return {"model_sha256": source.digest, **prompts.identity, **fields}


def of_grades(grading: GradingConfig) -> Identity:
    """Returns what the identity of grades holds beside the identity of the samples that are graded."""
    fields = {f"grading.{name}": value for name, value in fields_of(grading, GRADES).items()}
    return {**fields, **_function("grading.grader", grading.grader, grader_digest(grading.grader))}


def of_weights(cfg: RunConfig, samples: Identity) -> Identity:
    """Returns the identity of the weights of the samples whose identity is `samples`."""
    own = _function("method.reward", cfg.method.reward, reward_digest(cfg.method))
    reference = {"reference_sha256": reference_digest(cfg)}
    return {**samples, **of_grades(cfg.grading), **fields_of(cfg, WEIGHTS), **own, **reference}


def of_training(cfg: RunConfig, source: SourceModel, samples: Identity) -> Identity:
    """Returns the identity of the model that is trained on the samples whose identity is `samples`."""
    return {**fields_of(cfg, TRAINING), **of_weights(cfg, samples), "model_sha256": source.digest}


def _without_contents(fields: Identity) -> Identity:
    return {name: value for name, value in fields.items() if not name.startswith(_BY_CONTENT)}


def _function(flag: str, where: str | None, digest: str | None) -> Identity:
    """Returns a user's function, FILE.py:NAME, as an identity has it: by its name and the digest of its file."""
    return {flag: where and where.rpartition(":")[2], f"{flag}_sha256": digest}
