"""LASER-D (arXiv 2505.15612): a bonus for right samples that are short enough for their problem's difficulty.

    R(y) = A(y) + bonus A(y) 1[L(y) <= target(difficulty)]

A problem is easy where two thirds of its samples are right, medium from one third, else hard. The target of a
difficulty is the shortest length for which int(n * share of its problems' samples within the length) >= expected, n
being the fewest right samples of K that such a problem has: int(2K/3), int(K/3), or 1. So many right ones are expected
within the target. By the authors' code (`_choose_target_length`, `compute_length_reward_larse_d`).
Left out: fresh samples, the separate problems that the authors watch (here: the pool itself, once), and their penalty
for wrong samples. Their candidates for a target are 1,024 tokens apart; here `grain` says how far.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from o1p_jax.methods.base import Group
from o1p_jax.methods.rewarded import Rewarded, RewardedParams
from o1p_jax.runtime.fields import TRAINING, WEIGHTS, option


@dataclass(frozen=True, kw_only=True)
class LaserDParams(RewardedParams):
    """Right samples within a length that fits their difficulty earn a bonus (arXiv 2505.15612)."""

    name: str = option("laser_d", WEIGHTS, TRAINING, init=False)
    """The method's name; --method=NAME chooses another method and its defaults."""
    bonus: float = option(0.5, WEIGHTS, least=0, most=1e6)
    """What a right sample within the target earns beside the 1 for being right."""
    expected: int = option(1, WEIGHTS, least=1)
    """How many right samples of a problem are expected within the target."""
    grain: int = option(1, WEIGHTS, least=1)
    """Targets are multiples of so many tokens; the authors: 1024."""


class LaserD(Rewarded):
    title = "LASER-D"
    paper = "arXiv 2505.15612"
    Params = LaserDParams

    def reward(self, group: Group, params: LaserDParams) -> Float[np.ndarray, " K"]:
        """Returns the rewards where this problem is the whole pool."""
        return self.rewards([group], params)[0]

    def rewards(self, groups: Sequence[Group], params: LaserDParams) -> list[Float[np.ndarray, " K"]]:
        most = max((len(group.length_K) for group in groups), default=1)
        targets = []
        for level, fewest in enumerate((1, most // 3, 2 * most // 3)):
            length_n = np.sort(np.concatenate([np.zeros(0), *(g.counted_K for g in groups if _level(g) == level)]))
            # The first place at which int(fewest * share) reaches what is expected; the last one where none does.
            place = -(-params.expected * len(length_n) // max(fewest, 1))
            at = int(length_n[min(place, len(length_n)) - 1]) if len(length_n) else 0
            targets.append(-(-at // params.grain) * params.grain)
        return [g.correct_K * (1.0 + params.bonus * (g.counted_K <= targets[_level(g)])) for g in groups]

    def formula(self, params: LaserDParams) -> str:
        return (
            f"    R(y) = 1 + {params.bonus} if y is correct and within its problem's target, 1 if correct, else 0\n\n"
            "where the target is a length in tokens for each of three difficulties, told by how many of a problem's "
            f"solutions are correct: the shortest within which {params.expected} of them can be expected."
        )


def _level(group: Group) -> int:
    """Returns 0 for a hard problem, 1 for a medium and 2 for an easy one."""
    right, count = int(group.correct_K.sum()), len(group.correct_K)
    return (3 * right >= count) + (3 * right >= 2 * count)
