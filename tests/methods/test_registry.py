"""Every method of the registry has the whole face, and is found by its name."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from o1p_jax.methods import METHODS, find, method_of, params_of
from o1p_jax.methods.base import Group, Method, Params, Scored
from o1p_jax.methods.o1_pruner import O1PrunerParams
from o1p_jax.methods.rewarded import RewardedParams
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.fields import RESULTS, TRAINING, WEIGHTS


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_a_whole_face(name):
    method = METHODS[name]
    params = method.Params()
    assert params.name == name and method_of(params) is method and method.title and "arXiv" in method.paper
    assert method.title in method.card(params, None)
    for face in ("reward", "choose", "advantage", "objective", "card"):
        assert getattr(type(method), face) is not getattr(Method, face), face
    for field in dataclasses.fields(params):
        assert set(field.metadata["affects"]) <= {WEIGHTS, TRAINING} <= set(RESULTS), field.name
    saved = dataclasses.asdict(params)
    kind, values = params_of(saved)
    assert kind(**values) == params


@pytest.mark.parametrize("name", METHODS)
@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.booleans(), st.booleans()), min_size=1, max_size=16), st.randoms())
def test_rewards_choices_and_weights_are_finite_and_fit(name, samples, random):
    method, K = METHODS[name], len(samples)
    params = method.Params()
    group = Group(*(np.array(column) for column in zip(*samples, strict=True)))
    reward_K = method.reward(group, params)
    assert reward_K.shape == (K,) and reward_K.dtype == np.float64 and np.isfinite(reward_K).all()
    usable_K = (group.length_K > 0) & np.array([random.random() < 0.8 for _ in range(K)])
    units = method.choose(group, reward_K, np.array(random.sample(range(K), K)), usable_K, params)
    assert units.ndim == 2 and units.shape[1] == params.UNIT and units.dtype.kind == "i"
    assert all(len(set(unit)) == len(unit) and usable_K[unit].all() for unit in units.tolist())
    assert len({tuple(unit) for unit in units.tolist()}) == len(units)
    scored = Scored(reward_K, np.zeros(K, int), group, units)
    weights = method.advantage(scored, params)
    assert weights.shape == (K,) and np.isfinite(weights[scored.kept_n]).all()


def test_the_table_of_methods_has_them_all_with_the_knobs_of_their_own():
    table = (Path(__file__).parents[2] / "docs" / "methods.md").read_text()
    lines = [line.split(" | ") for line in table.splitlines() if line.startswith("| `")]
    rows = {cells[0].strip("| `"): cells for cells in lines}
    assert list(rows) == list(METHODS)
    shared = {field.name for kind in (Params, RewardedParams, O1PrunerParams) for field in dataclasses.fields(kind)}
    for name, method in METHODS.items():
        assert re.search(r"arXiv (\d+\.\d+)", method.paper)[1] in rows[name][1] or "baseline" in rows[name][1]
        own = {field.name for field in dataclasses.fields(method.Params)} - shared
        assert own <= set(re.findall(r"`(\w+)`", rows[name][3])), name


def test_an_unknown_method_is_refused_with_the_nearest():
    with pytest.raises(BadInput, match=r"^method=o1pruner: no such method; did you mean o1_pruner\?$"):
        find("o1pruner")
