"""What a model says of given tokens: as transformers has it, whatever the number of answers and devices."""

import numpy as np
import torch
from tiny_models import save, torch_model

from o1p_jax.sampling.base import Answer
from o1p_jax.sampling.scores import score


def test_scores_are_those_of_transformers(tmp_path):
    save("qwen3_head_dim", tmp_path)
    model, rng = torch_model("qwen3_head_dim"), np.random.default_rng(0)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(rng.integers(0, 96, n).tolist())

    answers = [Answer(ids(int(rng.integers(1, 60))), ids(int(rng.integers(1, 70))), None) for _ in range(11)]
    found = score(tmp_path, "float32", answers)
    for answer, scores in zip(answers, found, strict=True):
        text = torch.tensor([answer.prompt_ids + answer.token_ids])
        with torch.no_grad():
            logits = model(text).logits[0, len(answer.prompt_ids) - 1 : -1]
        expected = logits.log_softmax(-1)[torch.arange(len(answer.token_ids)), torch.tensor(answer.token_ids)]
        np.testing.assert_allclose(scores.logprob_T, expected.numpy(), atol=2e-4)
        gaps = logits.max(-1).values - logits[torch.arange(len(answer.token_ids)), torch.tensor(answer.token_ids)]
        np.testing.assert_allclose(scores.gap_T, gaps.numpy(), atol=2e-4)
    [unknown] = score(tmp_path, "float32", [Answer((1, 2), (96, 3), None)])
    assert not unknown.gap_T[0] <= 10
