import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from o1p_jax.config.tree import MethodConfig
from o1p_jax.data.records import TrainingSample
from o1p_jax.methods.objectives import LossSums, clipped_objective, policy_loss, sequence_ratio
from o1p_jax.training.logprobs import token_logprobs
from o1p_jax.training.packing import assemble

pytestmark = pytest.mark.core
# The golden values of two sequences packed in one row; the fourth position is padding.
LOGPROBS = jnp.array([[-0.5, -0.2, -1.0, jnp.nan, -0.3, -0.4]])
REFERENCE = jnp.array([[-0.7, -0.4, -1.1, 0.0, -0.2, -0.1]])
SEGMENTS = jnp.array([[1, 1, 1, 0, 2, 2]])
MASK = SEGMENTS > 0
WEIGHTS = jnp.array([[1.5, -0.5]])


def test_golden_ratios_and_losses():
    ratio, clamped = sequence_ratio(LOGPROBS - REFERENCE, MASK, SEGMENTS, 2, "geometric", 20.0)
    np.testing.assert_allclose(ratio, [[1.181360, 0.818731]], atol=1e-6)
    loss = clipped_objective(ratio, WEIGHTS, 0.2)
    np.testing.assert_allclose(loss, [[-1.772041, 0.409365]], atol=1e-6)
    np.testing.assert_allclose(loss.mean(), -0.681338, atol=1e-6)
    assert not clamped.any()


def test_sequence_ratio_is_the_product():
    ratio, _ = sequence_ratio(LOGPROBS - REFERENCE, MASK, SEGMENTS, 2, "sequence", 20.0)
    np.testing.assert_allclose(ratio, np.exp([[0.5, -0.4]]), rtol=1e-6)


def test_saturated_ratio_is_finite_counted_and_without_gradient():
    def loss(log_ratio):
        ratio, clamped = sequence_ratio(log_ratio, jnp.full((1, 4), True), jnp.ones((1, 4), jnp.int32), 2, "sequence",
                                        20.0)  # fmt: skip
        return clipped_objective(ratio, jnp.array([[0.0, 0.0]]), 0.2).sum(), clamped

    (value, clamped), gradient = jax.value_and_grad(loss, has_aux=True)(jnp.full((1, 4), 500.0))
    assert value == 0 and clamped.tolist() == [[True, False]]
    np.testing.assert_array_equal(gradient, 0)


def test_padding_reaches_neither_loss_nor_gradient():
    def loss(logprobs):
        return sequence_ratio(logprobs - REFERENCE, MASK, SEGMENTS, 3, "geometric", 20.0)[0].sum()

    value, gradient = jax.value_and_grad(loss)(LOGPROBS)
    np.testing.assert_allclose(value, 1.181360 + 0.818731 + 1, atol=1e-5)  # the third sequence isn't there: ratio 1
    assert gradient[0, 3] == 0 and np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("ratio", "weight", "expected", "slope"),
    [
        (1.1, 2.0, -2.2, -2.0),
        (1.5, 2.0, -2.4, 0.0),
        (0.5, 2.0, -1.0, -2.0),
        (1.5, -2.0, 3.0, 2.0),
        (0.5, -2.0, 1.6, 0.0),
    ],
)
def test_clip_cuts_the_gradient_only_where_the_ratio_went_the_weights_way(ratio, weight, expected, slope):
    value, gradient = jax.value_and_grad(lambda r: clipped_objective(r, jnp.array([[weight]]), 0.2)[0, 0])(
        jnp.array([[ratio]])
    )
    np.testing.assert_allclose([value, gradient[0, 0]], [expected, slope], rtol=1e-6)


@pytest.mark.parametrize("chunk", [1, 5, 12, 100])
def test_chunked_logprobs_equal_log_softmax(chunk):
    rng = np.random.default_rng(0)
    hidden, head = rng.normal(size=(2, 12, 8)).astype(np.float32), rng.normal(size=(8, 30)).astype(np.float32)
    targets = rng.integers(0, 30, (2, 12)).astype(np.int32)
    scale = rng.normal(size=(2, 12)).astype(np.float32)

    def ours(hidden, head):
        logprobs = token_logprobs(hidden, head, jnp.asarray(targets), chunk)
        return (logprobs * scale).sum(), logprobs

    h, w = torch.tensor(hidden, dtype=torch.float64, requires_grad=True), torch.tensor(head, dtype=torch.float64,
                                                                                        requires_grad=True)  # fmt: skip
    expected = torch.log_softmax(h @ w, -1).gather(-1, torch.tensor(targets[..., None], dtype=torch.int64))[..., 0]
    (expected * torch.tensor(scale)).sum().backward()
    (_, logprobs), gradients = jax.value_and_grad(ours, argnums=(0, 1), has_aux=True)(
        jnp.asarray(hidden), jnp.asarray(head)
    )
    np.testing.assert_allclose(logprobs, expected.detach(), atol=1e-5)
    np.testing.assert_allclose(gradients[0], h.grad, atol=1e-5)
    np.testing.assert_allclose(gradients[1], w.grad, atol=1e-5)


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
        samples, references, [[0, 3, 5], [1, 2], [4, 6, 7, 8], []], 1, 4, LENGTH, 5))  # fmt: skip

    def ours(table, head):
        logprobs = token_logprobs(table[batch.ids_RL], head, batch.targets_RL, 16)
        sums = policy_loss(logprobs, batch, MethodConfig(epsilon=0.2))
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


def test_sums_over_parts_add_up_to_the_whole():
    samples, references = _ragged(0)
    rows = [[0, 3, 5], [1, 2], [4, 6], [7, 8]]
    logprobs = jnp.asarray(np.random.default_rng(1).normal(-3, 0.5, (4, LENGTH)), jnp.float32)

    def sums(rows, logprobs):
        batch = assemble(samples, references, rows, 1, len(rows), LENGTH, 3)
        return policy_loss(logprobs, jax.tree.map(lambda x: jnp.asarray(x[0]), batch), MethodConfig())

    parts = LossSums.zero() + sums(rows[:1], logprobs[:1]) + sums(rows[1:], logprobs[1:])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), tuple(parts), tuple(sums(rows, logprobs)))
