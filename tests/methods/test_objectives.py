"""Ratio and objective to the digit, and what does not reach them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_cases import some_core

from o1p_jax.methods import METHODS
from o1p_jax.methods.base import Sequences
from o1p_jax.methods.o1_pruner import O1Pruner, O1PrunerParams
from o1p_jax.methods.objectives import LossSums, clipped_objective, sequence_ratio
from o1p_jax.methods.rewarded import Rewarded

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


@pytest.mark.core
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


# Two rows: what training lowers, its sums and gradients, bit by bit.
ROWS = Sequences(
    logprobs_RL=jnp.array([[-0.5, -0.2, -1.0, 0.0, -0.3, -0.4], [-2.0, -1.0, -0.25, -3.0, -0.5, -0.75]]),
    ref_logprobs_RL=jnp.array([[-0.7, -0.4, -1.1, 0.0, -0.2, -0.1], [-1.0, -1.5, -0.5, -2.0, -2.0, -0.1]]),
    mask_RL=jnp.array([[1, 1, 1, 0, 1, 1], [1, 1, 1, 1, 1, 1]], bool),
    segments_RL=jnp.array([[1, 1, 1, 0, 2, 2], [1, 1, 2, 2, 2, 3]]),
    weights_RM=jnp.array([[1.5, -0.5, 0.0], [-1.25, 0.75, 2.0]]),
    present_RM=jnp.array([[1, 1, 0], [1, 1, 1]], bool),
)
SUMS = {
    "code": ("-0x1.274424p+1", "0x1.257008p+2", "0x1.0b4996p-1", "0x1.48b5e4p+0", "0x1p+1", "0x0p+0", "0x1.4p+2",
             "0x1.6p+3"),
    "paper": ("-0x1.2c0b34p+1", "0x1.6422b2p+2", "0x1.0b4996p-1", "0x1.0ef9dcp+1", "0x1p+2", "0x0p+0", "0x1.4p+2",
              "0x1.6p+3"),
}  # fmt: skip
GRADIENTS = {
    "code": [["-0x1.2e6da4p-1"] * 3 + ["0x0p+0"] + ["0x1.a330acp-3"] * 2, ["0x0p+0"] * 5 + ["-0x1.0b4996p+0"]],
    "paper": [["0x0p+0"] * 6, ["0x0p+0"] * 5 + ["-0x1.0b4996p+0"]],
}


def objective(sequences: Sequences, params: O1PrunerParams) -> LossSums:
    return O1Pruner().objective(sequences, params)


@pytest.mark.core
@pytest.mark.parametrize("mode", ["code", "paper"])
def test_sums_and_gradients_to_the_bit(mode):
    @jax.jit
    def loss(logprobs):
        sums = objective(ROWS._replace(logprobs_RL=logprobs), O1PrunerParams(mode=mode, max_log_ratio=1.2))
        return sums.loss, sums

    (_, sums), gradient = jax.value_and_grad(loss, has_aux=True)(ROWS.logprobs_RL)
    assert [float(x) for x in sums] == [float.fromhex(x) for x in SUMS[mode]]
    np.testing.assert_array_equal(gradient, [[float.fromhex(x) for x in row] for row in GRADIENTS[mode]])


@pytest.mark.core
def test_sums_over_parts_add_up_to_the_whole():
    def rows(part: slice) -> LossSums:
        return objective(Sequences(*(x[part] for x in ROWS)), O1PrunerParams())

    parts = LossSums.zero() + rows(slice(0, 1)) + rows(slice(1, 2))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), tuple(parts), tuple(rows(slice(None))))


# Against float64 and plain loops: random packed rows, ragged, with padding at their ends and prompts between answers.
PAIRED = ("dpo_shortest", "dast")


def random_rows(seed: int, rows: int = 3, most: int = 4) -> dict[str, np.ndarray]:
    """`Sequences` in float64: up to `most` sequences a row, an even number, each of a prompt and an answer."""
    rng = np.random.default_rng(seed)
    counts = 2 * rng.integers(0, most // 2 + 1, rows)
    lengths = [[(int(rng.integers(0, 4)), int(rng.integers(1, 9))) for _ in range(count)] for count in counts]
    longest = max((sum(map(sum, row)) for row in lengths), default=0) + int(rng.integers(1, 5))
    shape = rows, longest
    found = {
        "logprobs_RL": rng.normal(-1.0, 0.6, shape), "ref_logprobs_RL": rng.normal(-1.0, 0.6, shape),
        "mask_RL": np.zeros(shape, bool), "segments_RL": np.zeros(shape, np.int32),
        "weights_RM": rng.normal(size=(rows, most)), "present_RM": np.zeros((rows, most), bool),
    }  # fmt: skip
    for r, row in enumerate(lengths):
        start = 0
        for m, (prompt, answer) in enumerate(row):
            end = start + prompt + answer
            found["segments_RL"][r, start:end] = m + 1
            found["mask_RL"][r, start + prompt : end] = True
            found["present_RM"][r, m] = True
            start = end
    found["logprobs_RL"][found["segments_RL"] == 0] = np.nan  # padding may hold anything
    return found


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + np.exp(-x))


def by_hand(name: str, params, rows: dict[str, np.ndarray]) -> tuple[float, np.ndarray]:
    """The sum of the losses, and its derivative with respect to each log-probability, by hand."""
    loss, slope_RL = 0.0, np.zeros_like(rows["logprobs_RL"])

    def tokens(r: int, m: int) -> np.ndarray:
        return np.flatnonzero(rows["mask_RL"][r] & (rows["segments_RL"][r] == m + 1))

    for r, m in zip(*np.nonzero(rows["present_RM"]), strict=True):
        at, weight = tokens(r, m), rows["weights_RM"][r, m]
        logprob = rows["logprobs_RL"][r]
        log_ratio = logprob - rows["ref_logprobs_RL"][r]
        if name == "sft_shortest":
            loss -= weight * logprob[at].sum()
            slope_RL[r, at] -= weight
        elif name in PAIRED:
            if m % 2:  # the pair was done at its first sequence; its loss stands at both
                continue
            worse = tokens(r, m + 1)
            if name == "dpo_shortest":
                margin = params.beta * (log_ratio[at].sum() - log_ratio[worse].sum())
                slopes = params.beta, params.beta
            else:
                margin = params.beta * (logprob[at].mean() - logprob[worse].mean()) - params.gamma
                slopes = params.beta / len(at), params.beta / len(worse)
            loss -= 2 * np.log(sigmoid(margin))
            slope_RL[r, at] -= 2 * sigmoid(-margin) * slopes[0]
            slope_RL[r, worse] += 2 * sigmoid(-margin) * slopes[1]
        else:
            whole = name == "o1_pruner" and params.ratio_kind == "sequence"
            low, high = 1 - params.epsilon, 1 + getattr(params, "clip_high", params.epsilon)
            ratio = np.exp(log_ratio[at].sum() if whole else log_ratio[at].mean())
            loss -= min(ratio * weight, np.clip(ratio, low, high) * weight)
            if not (ratio > high if weight > 0 else ratio < low):
                slope_RL[r, at] -= weight * ratio / (1 if whole else len(at))
    return loss, slope_RL


@pytest.mark.parametrize("name", ["o1_pruner", "o1_pruner paper", "tlmre", "dler", "luspo", "sft_shortest", *PAIRED])
@pytest.mark.parametrize("seed", some_core(range(6), range(2)))
def test_losses_and_gradients_are_those_of_float64_loops(name, seed):
    name, *mode = name.split()
    method = METHODS[name]
    params = method.Params(mode="paper") if mode else method.Params()
    rows = random_rows(seed)
    expected, slopes = by_hand(name, params, rows)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        arrays = {key: jnp.asarray(x) for key, x in rows.items()}

        @jax.jit
        def loss(logprobs_RL):
            sums = method.objective(Sequences(**{**arrays, "logprobs_RL": logprobs_RL}), params)
            return sums.loss, sums

        (value, sums), gradient = jax.value_and_grad(loss, has_aux=True)(arrays["logprobs_RL"])
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-6, atol=1e-6)
    assert int(sums.sequences) == rows["present_RM"].sum() and np.isfinite(gradient).all()


def test_the_rewarded_methods_share_one_objective():
    rows = Sequences(**{name: jnp.asarray(x) for name, x in random_rows(0).items()})
    with jax.numpy_dtype_promotion("standard"):
        losses = {
            name: float(method.objective(rows, replace(method.Params(), epsilon=0.2, epsilon_high=None)).loss)
            for name, method in METHODS.items()
            if isinstance(method, Rewarded)
        }
    assert len(losses) > 12 and len(set(losses.values())) == 1
