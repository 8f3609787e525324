"""A user's own reward, `--method.reward=FILE.py:NAME`, takes the place of the method's reward, and of nothing else.

The function is called like `Method.reward`: (group, params) -> R_K, with NumPy arrays in the `Group`. One group must
give the same rewards whenever it is called: a run that is killed goes on with what its last start has written.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from o1p_jax.methods.base import Group, Method, Params
from o1p_jax.runtime.user_code import UserFunction, public_name

_TRIAL = Group(
    length_K=np.array([10, 20, 30]),
    correct_K=np.array([True, False, True]),
    truncated_K=np.array([False, False, True]),
)


def rewards_of(method: Method, params: Params, groups: Mapping[str, Group]) -> list[Float[np.ndarray, " K"]]:
    """Returns the rewards of the samples in each of `groups` (by problem_id): the user's, or else the method's own.

    Where a user's function raises or returns anything but K finite numbers, BadInput names function and problem.
    """
    own = _own_reward(params)
    if own is None:
        return method.rewards(list(groups.values()), params)
    function = own.load(arguments=2)

    def reward(problem: str, group: Group) -> Float[np.ndarray, " K"]:
        try:
            own_copy = Group(group.length_K.copy(), group.correct_K.copy(), group.truncated_K.copy())
            result = function(own_copy, params)
            reward_K = np.asarray(result, np.float64)
        except Exception as e:
            raise own.error(f"raised {own.raised(e)} (problem {problem})") from e
        if reward_K.shape != group.length_K.shape:
            raise own.error(
                f"must return one number for each of the {len(group.length_K)} samples, it returned an array of shape "
                f"{reward_K.shape} (problem {problem})"
            )
        if not np.isfinite(reward_K).all():
            raise own.error(f"must return finite numbers, it returned {reward_K.tolist()} (problem {problem})")
        return reward_K

    return [reward(problem, group) for problem, group in groups.items()]


def check_reward(method: Method, params: Params) -> None:
    """Tries the user's reward, if there is one, on three made-up samples; raises BadInput where it fails."""
    if params.reward is not None:
        rewards_of(method, params, {"made up for a trial": _TRIAL})


def source_digest(params: Params) -> str | None:
    """Returns the SHA-256, in hex, of the file of the user's reward, or None; the weights depend on it."""
    own = _own_reward(params)
    return None if own is None else own.digest


def card_text(method: Method, params: Params, digest: str | None) -> str:
    """Returns what the model card says of the method. `digest` is the `source_digest` of the reward that was used."""
    if params.reward is None:
        return method.card(params, None)
    known = f", from a file whose SHA-256 begins with `{digest[:12]}`" if digest else ""
    return method.card(params, f"the number that the function `{public_name(params.reward)}` gave the solution{known}")


def _own_reward(params: Params) -> UserFunction | None:
    return None if params.reward is None else UserFunction.read(f"{params.FLAG}reward", params.reward)
