"""The host's table of the embedded sampler: who decodes where, and which prompts are computed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from o1p_jax.data.records import Request
from o1p_jax.sampling.base import SamplingParams
from o1p_jax.sampling.decode import STEPS
from o1p_jax.sampling.slots import Slots

HOW = SamplingParams(max_tokens=40, stop_ids=(1,))


def fill(slots: Slots) -> tuple[int, int]:
    """Fills the table; returns how many prompts were computed, and how many copied."""
    computed = copied = 0
    while slots.worth_filling:
        new, copies = slots.fill()
        computed += 0 if new is None else int(new.used_D.sum())
        copied += 0 if copies is None else int(copies.used_D.sum())
    return computed, copied


@pytest.mark.parametrize(("devices", "computed"), [(1, 4), (2, 4), (8, 8)])
def test_a_device_computes_a_prompt_once(devices, computed):
    slots = Slots(HOW, 32, devices, 4, None)
    for k in range(32):
        slots.add(k, Request((2, 3, k // 8), seed=k))
    assert fill(slots) == (computed, 32 - computed)
    for k in range(32, 40):
        slots.add(k, Request((2, 3, 3), seed=k))  # the last of the prompts again
    tokens_TB = np.full((STEPS, 32), 5)
    *_, slots_B = slots.state()
    at = slots_B + np.repeat(np.arange(devices), 32 // devices) * (32 // devices)
    tokens_TB[3, slots.request[at] < 8] = 1  # the samples of the first end
    assert sorted(key for key, _ in slots.take(tokens_TB, -0.5 * tokens_TB)) == list(range(8))
    computed, copied = fill(slots)
    assert computed + copied == 8 and computed <= devices


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_slots_hold_the_prompts_that_their_requests_have(data):
    """A cache of the test's own, which the table's orders fill, copy and lengthen, always has each request's text."""
    devices, share = data.draw(st.sampled_from([1, 2])), 16
    slots = Slots(HOW, devices * share, devices, 4, None)
    cache: list[list[tuple]] = [[()] * share for _ in range(devices)]
    texts: dict[int, tuple[int, ...]] = {}
    prompts: dict[int, tuple[int, ...]] = {}
    done, key = 0, 0

    for _ in range(data.draw(st.integers(1, 25))):
        for _ in range(data.draw(st.integers(0, 12))):
            prompt = tuple(data.draw(st.sampled_from([(7,), (7, 8), (9, 9, 9), (4, 5, 6, 7)])))
            slots.add(key, Request(prompt, key, logprobs=key % 2 == 0))
            texts[key] = prompts[key] = prompt
            key += 1
        while slots.worth_filling:
            new, copies = slots.fill()
            if new is not None:
                rows = len(new.ids_BP) // devices
                for d, used in enumerate(new.used_D):
                    for b in range(d * rows, d * rows + used):
                        cache[d][new.slots_B[b]] = tuple(new.ids_BP[b, : new.lengths_B[b]].tolist())
            if copies is not None:
                rows = len(copies.from_B) // devices
                for d, used in enumerate(copies.used_D):
                    for b in range(d * rows, d * rows + used):
                        cache[d][copies.to_B[b]] = cache[d][copies.from_B[b]][: copies.size]
        last_B, length_B, _, _, slots_B = slots.state()
        rows = len(slots_B) // devices
        assert rows in (share, share // 4) and np.all(np.diff(length_B.reshape(devices, rows)) <= 0)
        at = [divmod(b, rows)[0] * share + int(slot) for b, slot in enumerate(slots_B)]
        assert len(set(at)) == len(at) and set(np.flatnonzero(slots.request >= 0)) <= set(at)
        tokens_TB = np.array([[data.draw(st.integers(0, 30)) for _ in at] for _ in range(2)] * (STEPS // 2))
        grown = {}
        for b, place in enumerate(at):
            if slots.request[place] >= 0:
                k, (d, slot) = int(slots.request[place]), divmod(place, share)
                assert (*cache[d][slot][: length_B[b]], last_B[b]) == texts[k] and length_B[b] == len(texts[k]) - 1
                grown[k] = texts[k] + tuple(tokens_TB[:, b].tolist())
                cache[d][slot] = grown[k][: length_B[b] + STEPS]
        ended = dict(slots.take(tokens_TB, -0.5 * tokens_TB))
        for k, text in grown.items():
            if k in ended:
                done += 1
                whole = prompts[k] + ended[k].token_ids
                assert whole == text[: len(whole)] and len(whole) > len(texts[k])
                assert ended[k].logprobs == (tuple(-0.5 * i for i in ended[k].token_ids) if k % 2 == 0 else None)
            else:
                texts[k] = text
    assert done + slots.in_flight == key
