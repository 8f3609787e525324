"""The reference may be another run's base and samples: found by the run's folder, and counted by its contents."""

from dataclasses import replace
from pathlib import Path

import pytest
from drive_train import tiny_config, tiny_model
from made_pool import sample, write_pool

from o1p_jax.config.tree import RunConfig
from o1p_jax.methods.dast import DASTParams
from o1p_jax.methods.o1_pruner import O1PrunerParams
from o1p_jax.models.source import find_model
from o1p_jax.runtime.errors import BadInput
from o1p_jax.stages import identity
from o1p_jax.stages.reference import reference_digest, reference_means, reference_model
from o1p_jax.stages.run_folder import open_run
from o1p_jax.stages.weigh import weigh


@pytest.fixture
def first(tmp_path) -> RunConfig:
    """A run that has weighed two problems' samples: three lengths of 2, 4 and 6, and one that is undecided."""
    tiny_model(tmp_path / "model")
    cfg = tiny_config(tmp_path / "first", method=O1PrunerParams(m=3))
    rows = [sample("p", k, 2 + 2 * k, k < 2) for k in range(3)]
    pool, grades = write_pool(tmp_path / "first" / "pool", [*rows, sample("q", 0, 5, True) | {"grade": "timeout"}])
    open_run(cfg, None)
    weigh(pool, grades, cfg.training, identity.of_weights(cfg, pool.identity), tmp_path / "first" / "weights")
    return cfg


def test_means_and_model_are_those_of_the_run_that_is_named(first, tmp_path):
    source = find_model(str(tiny_model(tmp_path / "other", tie_word_embeddings=True)))
    assert reference_means(first) is reference_digest(first) is None and reference_model(first, source) is source
    cfg = replace(first, reference=first.run)
    assert reference_means(cfg) == {"p": (4.0, 2 / 3)}
    assert reference_model(cfg, source).digest == find_model(first.model).digest
    before, now = identity.of_weights(first, {}), identity.of_weights(cfg, {})
    assert {name for name in now if now[name] != before[name]} == {"reference_sha256"}
    wider = find_model(str(tiny_model(tmp_path / "wider", hidden_size=64)))
    with pytest.raises(BadInput, match=r"^reference=.*first: began from .*model, another kind of model than model="):
        reference_model(cfg, wider)


def test_another_weighing_of_the_reference_is_another_reference(first, tmp_path):
    cfg = replace(first, reference=first.run)
    before = reference_digest(cfg)
    other = replace(first, method=O1PrunerParams(m=2))
    pool, grades = write_pool(tmp_path / "again", [sample("p", k, 2 + 2 * k, k < 2) for k in range(3)])
    weigh(pool, grades, other.training, identity.of_weights(other, pool.identity), Path(first.run) / "weights")
    assert reference_digest(cfg) != before


def test_what_is_no_reference_is_refused(first, tmp_path):
    with pytest.raises(BadInput, match=r"^reference=frist: must be last, first, or the folder of a run that has"):
        reference_means(replace(first, reference="frist"))
    own = O1PrunerParams(reward="mine.py:reward")
    for method, named in {DASTParams(): "dast", own: "o1_pruner with method.reward"}.items():
        with pytest.raises(
            BadInput, match=rf"^reference=first: method={named} compares .* set reference=last, or take"
        ):
            RunConfig(reference="first", method=method)
