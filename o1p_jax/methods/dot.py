"""DOT, dynamic outlier truncation (arXiv 2601.03969): far too long samples of solved problems count as wrong.

    R(y) = 0 if all of the problem's samples are correct and L(y) - floor(mean + cut std) >= margin, else A(y)

mean and std (ddof 0) are over the problem's lengths; a sample that is cut there has no answer left. By the authors'
README; `cut` 3 as method.md has it. No sample of K lies farther than sqrt(K - 1) standard deviations from the mean, so
that with cut = 3 nothing happens below K = 11: take a smaller cut for smaller groups. Left out: fresh samples, KL-Cov,
predictive dynamic sampling; and the cut sample is trained on whole, not up to the cut.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from o1p_jax.methods.base import Group
from o1p_jax.methods.rewarded import Rewarded, RewardedParams
from o1p_jax.runtime.fields import TRAINING, WEIGHTS, option


@dataclass(frozen=True, kw_only=True)
class DOTParams(RewardedParams):
    """Outliers by length among all-correct samples count as wrong (arXiv 2601.03969)."""

    name: str = option("dot", WEIGHTS, TRAINING, init=False)
    """The method's name; --method=NAME chooses another method and its defaults."""
    cut: float = option(3.0, WEIGHTS, least=0, most=1e6)
    """How many standard deviations above the mean length a sample is cut."""
    margin: int = option(1, WEIGHTS, least=1)
    """How many tokens the cut must remove at least."""


class DOT(Rewarded):
    title = "DOT, dynamic outlier truncation"
    paper = "arXiv 2601.03969"
    Params = DOTParams

    def reward(self, group: Group, params: DOTParams) -> Float[np.ndarray, " K"]:
        length_K = group.counted_K
        end = np.floor(length_K.mean() + params.cut * length_K.std())
        cut_K = (length_K - end >= params.margin) & group.correct_K.all()
        return (group.correct_K & ~cut_K).astype(np.float64)

    def formula(self, params: DOTParams) -> str:
        return (
            "    R(y) = 1 if y is correct, 0 if not\n\nwhere of a problem whose solutions are all correct those count "
            f"as wrong that are {params.margin} tokens or more longer than the mean plus {params.cut} standard "
            "deviations of their lengths."
        )
