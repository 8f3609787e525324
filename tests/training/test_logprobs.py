import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from o1p_jax.data.records import TrainingSample
from o1p_jax.methods.o1_pruner import O1Pruner, O1PrunerParams
from o1p_jax.training.logprobs import token_logprobs
from o1p_jax.training.packing import assemble
from o1p_jax.training.shapes import Shape
from o1p_jax.training.step import sequences_of

pytestmark = pytest.mark.core


@pytest.mark.parametrize("words", [30, 128, 300, 512])
@pytest.mark.parametrize("cap", [None, 2.0])
def test_logprobs_by_blocks_equal_log_softmax(words, cap):
    """The last block of 300 words begins before the end of the one before; a chunk of 1 means blocks of 128 words."""
    rng = np.random.default_rng(0)
    hidden, head = rng.normal(size=(2, 12, 8)).astype(np.float32), rng.normal(size=(8, words)).astype(np.float32)
    targets = rng.integers(0, words, (2, 12)).astype(np.int32)
    targets[0, :4] = [0, words - 1, words // 2, min(words - 1, 255)]
    scale = rng.normal(size=(2, 12)).astype(np.float32)

    def bent(lib, logits):
        return logits if cap is None else cap * lib.tanh(logits / cap)

    h, w = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (hidden, head))
    indices = torch.tensor(targets[..., None], dtype=torch.int64)
    expected = torch.log_softmax(bent(torch, h @ w), -1).gather(-1, indices)[..., 0]
    (expected * torch.tensor(scale)).sum().backward()
    for chunk in (1, 12, 100):

        def ours(hidden, head, chunk=chunk):
            logprobs = token_logprobs(hidden, head, jnp.asarray(targets), chunk, lambda logits: bent(jnp, logits))
            return (logprobs * scale).sum(), logprobs

        (_, logprobs), gradients = jax.jit(jax.value_and_grad(ours, argnums=(0, 1), has_aux=True))(hidden, head)
        np.testing.assert_allclose(logprobs, expected.detach(), atol=1e-5)
        np.testing.assert_allclose(gradients[0], h.grad, atol=1e-5)
        np.testing.assert_allclose(gradients[1], w.grad, atol=1e-5)


def test_bfloat16_gradients_are_rounded_once():
    """Each block adds to the hidden states' gradient in float32; the sum of rounded parts would be further off."""
    rng = np.random.default_rng(0)
    hidden, head = (jnp.asarray(rng.normal(size=s), jnp.bfloat16) for s in ((1, 16, 8), (8, 4096)))
    targets = jnp.asarray(rng.integers(0, 4096, (1, 16)), jnp.int32)

    def gradients(hidden, head, chunk):
        return jax.grad(lambda h, w: token_logprobs(h, w, targets, chunk).sum(), argnums=(0, 1))(hidden, head)

    for blocks, whole in zip(gradients(hidden, head, 1), gradients(hidden, head, 16), strict=True):
        assert blocks.dtype == jnp.bfloat16
        np.testing.assert_allclose(blocks.astype(jnp.float32), whole.astype(jnp.float32), rtol=2**-7, atol=1e-6)


def test_the_compiled_derivative_holds_a_block_of_logits_only():
    tokens, width, words, chunk = 512, 16, 8192, 32
    arrays = (jnp.zeros((1, tokens, width)), jnp.zeros((width, words)), jnp.zeros((1, tokens), jnp.int32))

    def temporaries(chunk):
        derivative = jax.grad(lambda h, w, t: token_logprobs(h, w, t, chunk).sum(), argnums=(0, 1))
        return jax.jit(derivative).lower(*arrays).compile().memory_analysis().temp_size_in_bytes

    logits = 4 * tokens * words
    assert temporaries(chunk) < 0.2 * logits < logits <= temporaries(tokens)


VOCAB, WIDTH, LENGTH = 24, 6, 40


def _ragged(seed: int) -> tuple[list[TrainingSample], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    samples = [
        TrainingSample(
            problem_id=str(i), sample_idx=0, prompt_ids=tuple(rng.integers(0, VOCAB, rng.integers(1, 5)).tolist()),
            completion_ids=tuple(rng.integers(0, VOCAB, rng.integers(1, 9)).tolist()), weight=float(rng.normal()),
        )
        for i in range(9)
    ]  # fmt: skip
    return samples, [rng.normal(-3.2, 0.4, len(s.completion_ids)).astype(np.float32) for s in samples]


def _plain_loss(samples, references, table, head, epsilon):
    """The `code` loss on one sample after the other, float64, whole logits; token t's hidden state is table[t]."""
    losses = []
    for sample, reference in zip(samples, references, strict=True):
        ids = torch.tensor(sample.prompt_ids + sample.completion_ids)
        logprobs = torch.log_softmax(table[ids[:-1]] @ head, -1)[torch.arange(len(ids) - 1), ids[1:]]
        answer = logprobs[len(sample.prompt_ids) - 1 :]
        ratio = (answer - torch.tensor(reference, dtype=torch.float64)).mean().exp()
        losses.append(-torch.minimum(ratio * sample.weight, ratio.clamp(1 - epsilon, 1 + epsilon) * sample.weight))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("seed", range(8))
def test_loss_and_gradients_equal_a_plain_float64_version(seed):
    samples, references = _ragged(seed)
    rng = np.random.default_rng(seed)
    table, head = rng.normal(size=(VOCAB, WIDTH)), rng.normal(size=(WIDTH, VOCAB))
    batch = jax.tree.map(lambda x: jnp.asarray(x[0]), assemble(
        samples, references, [[[0, 3, 5], [1, 2], [4, 6, 7, 8], []]], Shape(4, LENGTH), 1, 5))  # fmt: skip

    def ours(table, head):
        logprobs = token_logprobs(table[batch.ids_RL], head, batch.targets_RL, 16)
        sums = O1Pruner().objective(sequences_of(logprobs, batch), O1PrunerParams(epsilon=0.2))
        return sums.loss / sums.sequences, sums

    (loss, sums), gradients = jax.value_and_grad(ours, argnums=(0, 1), has_aux=True)(
        jnp.asarray(table, jnp.float32), jnp.asarray(head, jnp.float32)
    )
    exact_table, exact_head = torch.tensor(table, requires_grad=True), torch.tensor(head, requires_grad=True)
    exact = _plain_loss(samples, references, exact_table, exact_head, 0.2)
    exact.backward()
    np.testing.assert_allclose(loss, exact.item(), rtol=1e-5)
    np.testing.assert_allclose(gradients[0], exact_table.grad, atol=1e-5)
    np.testing.assert_allclose(gradients[1], exact_head.grad, atol=1e-5)
    assert sums.sequences == 9 and sums.tokens == sum(len(s.prompt_ids + s.completion_ids) for s in samples)
