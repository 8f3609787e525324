"""Is what a server serves the model that it is asked for? Names are compared, and answers with the model's own scores.

The answers are greedy. A server computes in another order and type than this project's decoder, so that a token that
is almost as likely as the likeliest one may stand in its place; a token that is much less likely comes from other
weights. Where the server tells log-probabilities, they must be nearer to the model's than to those of the models that
it could be mistaken for: a model after little training answers almost like the one before.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.progress import say
from o1p_jax.sampling.base import Answer

_GAP = 0.5
"""How much less likely than the likeliest token, in nats, rounding may make a greedy token."""
_SHARE = 0.02
"""The share of the tokens that may be less likely still, where rounding sends a token to other experts."""
_COMPARABLE = 0.5
"""The largest mean difference, in nats, of log-probabilities that mean the same: a server may be set to tell others."""

Score = Callable[[Path, str, Sequence[Answer]], Sequence]
"""`sampling.scores.score`, which needs JAX."""


def common_name(served: Mapping[str, Sequence[str]], wanted: str | None) -> str:
    """Returns the name by which every server is asked: `wanted`, or the only one that they serve.

    `served` holds the models' names by the server's URL. Raises BadInput where there is no such name, or several.
    """
    chosen = {}
    for url, names in served.items():
        listed = ", ".join(names) or "no model"
        if wanted is None and len(names) != 1:
            raise BadInput(f"sampling.served_model: {url} serves {listed}; name one of them {_FLAGS}")
        if wanted is not None and wanted not in names:
            raise BadInput(f"sampling.served_model={wanted}: {url} serves {listed}; name one of them {_FLAGS}")
        chosen[url] = wanted or names[0]
    if len(set(chosen.values())) > 1:
        listed = ", ".join(f"{url} serves {name}" for url, name in chosen.items())
        raise BadInput(
            f"sampling.servers: {listed}; all must serve one model by one name (--served-model-name of vLLM)"
        )
    return next(iter(chosen.values()))


_FLAGS = "(evaluation.served_model where evaluation.servers are asked)"


def check_answers(
    answers: Mapping[str, Sequence[Answer]], folder: Path, others: Sequence[Path], dtype: str, score: Score
) -> None:
    """Raises BadInput that names the server whose `answers` (by its URL) are not those of the model in `folder`."""
    given = [answer for of_server in answers.values() for answer in of_server]
    scores = score(folder, dtype, given)
    of_others = {other: score(other, dtype, given) for other in others if all(a.logprobs is not None for a in given)}
    if others and not of_others:
        say("the servers tell no log-probabilities: a model after little training can't be told from its base by them")
    first = 0
    for url, of_server in answers.items():
        mine = slice(first, first + len(of_server))
        first += len(of_server)
        gaps = np.concatenate([s.gap_T for s in scores[mine]])
        odd = ~(gaps <= _GAP)  # a token that the model does not know has no gap at all
        if not gaps.size or odd.mean() > _SHARE:
            raise BadInput(
                f"{url} does not serve the model in {folder}: {odd.sum()} of the {gaps.size} tokens that it answered "
                f"greedily are not among that model's likeliest; serve that folder there, or name its server"
            )
        if not of_others:
            continue
        wanted = _distance(of_server, scores[mine])
        for other, other_scores in of_others.items():
            distance = _distance(of_server, other_scores[mine])
            if distance < min(wanted, _COMPARABLE):
                raise BadInput(
                    f"{url} serves {other} rather than {folder}: its log-probabilities differ from theirs by "
                    f"{distance:.4f} and {wanted:.4f} nats a token; serve {folder} there, or name its server"
                )


def _distance(answers: Sequence[Answer], scores: Sequence) -> float:
    """Returns the mean difference, in nats a token, of the log-probabilities by the server and by a model."""
    pairs = zip(answers, scores, strict=True)
    return float(np.concatenate([np.abs(np.array(a.logprobs) - s.logprob_T) for a, s in pairs]).mean())
