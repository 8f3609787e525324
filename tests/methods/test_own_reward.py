"""A user's reward is called like a method's, and what it does wrong is one line that names it."""

import numpy as np
import pytest

from o1p_jax.methods.base import Group
from o1p_jax.methods.o1_pruner import O1Pruner, O1PrunerParams
from o1p_jax.methods.own_reward import card_text, check_reward, rewards_of, source_digest
from o1p_jax.runtime.errors import BadInput

GROUP = Group(np.array([100, 200]), np.array([True, False]), np.array([False, True]))


@pytest.fixture
def named(tmp_path):
    """Writes a reward `mine` with this body; returns the parameters that name it."""

    def write(body: str) -> O1PrunerParams:
        path = tmp_path / "mine.py"
        path.write_text(f"import numpy as np\n\n\ndef mine(group, params):\n    {body}\n")
        return O1PrunerParams(reward=f"{path}:mine")

    return write


def rewards(params):
    return rewards_of(O1Pruner(), params, {"p7": GROUP})[0]


def test_without_one_the_methods_own_reward_is_used():
    params = O1PrunerParams()
    check_reward(O1Pruner(), params)
    np.testing.assert_array_equal(rewards(params), O1Pruner().reward(GROUP, params))
    assert source_digest(params) is None


def test_the_users_function_gets_group_and_parameters(named):
    params = named("return params.lam * group.correct_K - group.truncated_K - group.length_K / 100")
    check_reward(O1Pruner(), params)
    got = rewards(params)
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got, [1.0, -3.0])


def test_a_list_of_numbers_will_do(named):
    np.testing.assert_array_equal(rewards(named("return [1, 2][: len(group.length_K)]")), [1.0, 2.0])


def test_what_the_function_changes_in_the_group_stays_its_own(named):
    rewards(named("group.length_K[:] = 0; return group.length_K"))
    assert GROUP.length_K.tolist() == [100, 200]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 1.0", "must return one number for each of the 2 samples, it returned an array of shape ()"),
        ("return [[1.0, 2.0]]", "shape (1, 2)"),
        ("return np.array([1.0, np.nan])", "must return finite numbers"),
        ("return group.length_K / 0.0", "must return finite numbers"),
        ("return None", "returned an array of shape ()"),
        ("return ['a', 'b']", "raised ValueError"),
        ("raise KeyError('lam')", "raised KeyError in line 5: 'lam'"),
        ("return [1.0, [2.0]]", "raised ValueError"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_wrong_result_names_function_and_problem(named, body, message):
    params = named(body)
    with pytest.raises(BadInput) as error:
        rewards(params)
    text = str(error.value)
    assert text.startswith(f"method.reward={params.reward}: ") and message in text and "problem p7" in text
    assert "\n" not in text
    with pytest.raises(BadInput, match="made up for a trial"):
        check_reward(O1Pruner(), params)


def test_another_source_is_another_digest(named):
    first, second = source_digest(named("return group.correct_K * 1.0")), source_digest(named("return group.length_K"))
    assert first and second and first != second and len(first) == 64


def test_the_card_names_the_reward_and_not_the_formula(named, tmp_path):
    params = named("return group.length_K")
    digest = source_digest(params)
    text = card_text(O1Pruner(), params, digest)
    assert "`mine.py:mine`" in text and f"`{digest[:12]}`" in text
    assert str(tmp_path) not in text and "L̄" not in text
    assert "L̄ / L(y)" in card_text(O1Pruner(), O1PrunerParams(), None)
