"""GRPO-lambda (arXiv 2505.18086): the length counts only for problems that are mostly solved.

    R(y) = A(y) (1 - alpha sigmoid(z(y)))   for the share `top` of all problems with the most correct samples
    R(y) = A(y)                             for the others

z is the length, standardised over the problem's correct samples. The switch by the correctness of groups, the best ones
of a batch, is as the paper's abstract and a summary tell it; the penalty is TLMRE's, and `top` and alpha are guesses.
 Left out: fresh samples; the batch is the whole pool. Problems with as many correct samples are treated alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from o1p_jax.methods.base import Group
from o1p_jax.methods.rewarded import Rewarded, RewardedParams, standardized
from o1p_jax.runtime.fields import TRAINING, WEIGHTS, option


@dataclass(frozen=True, kw_only=True)
class GRPOLambdaParams(RewardedParams):
    """Right samples of the problems solved best earn less the longer they are (arXiv 2505.18086)."""

    name: str = option("grpo_lambda", WEIGHTS, TRAINING, init=False)
    """The method's name; --method=NAME chooses another method and its defaults."""
    alpha: float = option(0.2, WEIGHTS, least=0, most=1)
    """The weight of length."""
    top: float = option(0.5, WEIGHTS, least=0, most=1)
    """lambda, the share of the problems in which the length counts."""


class GRPOLambda(Rewarded):
    title = "GRPO-lambda"
    paper = "arXiv 2505.18086"
    Params = GRPOLambdaParams

    def reward(self, group: Group, params: GRPOLambdaParams) -> Float[np.ndarray, " K"]:
        """Returns the rewards where this problem is the whole pool."""
        return self.rewards([group], params)[0]

    def rewards(self, groups: Sequence[Group], params: GRPOLambdaParams) -> list[Float[np.ndarray, " K"]]:
        solved = np.array([group.correct_K.mean() for group in groups])
        count = int(np.ceil(params.top * len(groups)))
        least = np.sort(solved)[-count] if count else np.inf
        rewards = []
        for group, share in zip(groups, solved, strict=True):
            z_K = standardized(group.counted_K.astype(np.float64), group.correct_K)
            alpha = params.alpha if share >= least else 0.0
            rewards.append(group.correct_K * (1.0 - alpha / (1.0 + np.exp(-z_K))))
        return rewards

    def formula(self, params: GRPOLambdaParams) -> str:
        return (
            f"    R(y) = A(y) · (1 - {params.alpha} · sigmoid((L(y) - mean) / std))\n\nin the {params.top:.0%} of the "
            "problems of which most solutions are correct, and A(y) in the others; A(y) is 1 if y is correct and 0 if "
            "not, L(y) is y's length in tokens, and mean and std are over the problem's correct "
            "solutions."
        )
