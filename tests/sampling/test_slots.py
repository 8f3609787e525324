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
    tokens_TB[3, slots.request < 8] = 1  # the samples of the first end
    assert sorted(key for key, _ in slots.take(tokens_TB)) == list(range(8))
    computed, copied = fill(slots)
    assert computed + copied == 8 and computed <= devices


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_slots_hold_the_prompts_that_their_requests_have(data):
    """A cache of the test's own, which the table's orders move, fill and copy, always has each request's text."""
    devices, share = data.draw(st.sampled_from([1, 2])), 16
    slots = Slots(HOW, devices * share, devices, 4, None)
    cache: list[list[tuple]] = [[()] * share for _ in range(devices)]
    texts: dict[int, tuple[int, ...]] = {}
    done, key = 0, 0

    def moved(order):
        order = order.reshape(devices, -1)
        return [[rows[i] for i in order[d]] for d, rows in enumerate(cache)]

    for _ in range(data.draw(st.integers(1, 25))):
        for _ in range(data.draw(st.integers(0, 12))):
            prompt = tuple(data.draw(st.sampled_from([(7,), (7, 8), (9, 9, 9), (4, 5, 6, 7)])))
            slots.add(key, Request(prompt, key))
            texts[key] = prompt
            key += 1
        if (order := slots.widened()) is not None:
            cache = moved(order)
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
        if (order := slots.better_order(64)) is not None:
            cache = moved(order)
        last_B, length_B, _, _ = slots.state()
        flat = [text for rows in cache for text in rows]
        assert len(flat) == len(slots.request)
        for b in np.flatnonzero(slots.request >= 0):
            text = texts[int(slots.request[b])]
            assert (*flat[b][: length_B[b]], last_B[b]) == text and length_B[b] == len(text) - 1
        tokens_TB = np.array(
            [[data.draw(st.integers(0, 30)) for _ in range(len(flat))] for _ in range(2)] * (STEPS // 2)
        )
        lengths = length_B.copy()
        new_of = {int(slots.request[b]): tokens_TB[:, b].tolist() for b in np.flatnonzero(slots.request >= 0)}
        at = {int(slots.request[b]): b for b in np.flatnonzero(slots.request >= 0)}
        ended = dict(slots.take(tokens_TB))
        for k, b in at.items():
            if k in ended:
                done += 1
            else:
                d, row = divmod(int(b), len(flat) // devices)
                text = texts[k] + tuple(new_of[k])
                cache[d][row] = text[: lengths[b] + STEPS]
                texts[k] = text
    assert done + slots.in_flight == key
