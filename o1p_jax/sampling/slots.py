"""The host's table of which request decodes in which slot of the embedded sampler, and how far it is.

Legend: B slots on all devices together, T tokens of a call.
"""

from collections import deque
from typing import NamedTuple

import numpy as np

from o1p_jax.data.records import Completion, Request
from o1p_jax.sampling.base import SamplingParams
from o1p_jax.sampling.decode import bucket

_NONE = -1


class Prefill(NamedTuple):
    """What `decode.prefill` takes: of each device the first `used` rows, of each row the first `lengths` tokens."""

    ids_BP: np.ndarray
    lengths_B: np.ndarray
    slots_B: np.ndarray
    used_D: np.ndarray


class Copies(NamedTuple):
    """What `decode.copy_rows` takes: of each device the first `used` pairs of slots."""

    from_B: np.ndarray
    to_B: np.ndarray
    used_D: np.ndarray
    size: int
    """How many positions are copied, those of the longest prompt and some more."""


class Slots:
    """The slots of a device lie side by side; its rows, each with a slot, are read in groups of `group`.

    A text that grows past `recomputed_past` tokens leaves its slot there and waits, before all others, to be filled in
    anew with what it has become.
    """

    def __init__(self, how: SamplingParams, slots: int, devices: int, group: int, recomputed_past: int | None):
        self._how, self._devices, self._group, self._recomputed_past = how, devices, group, recomputed_past
        self.tokens = 0
        """How many tokens have been drawn."""
        self._requests: dict[int, Request] = {}
        self._tokens: dict[int, list[int]] = {}
        self._logprobs: dict[int, list[float]] = {}
        """The log-probabilities of the tokens, of the requests that ask for them."""
        self._waiting: deque[int] = deque()
        self.request = np.full(slots, -1)
        self.length = np.zeros(slots, np.int32)
        self._last = np.zeros(slots, np.int32)
        self._key = np.zeros((slots, 2), np.uint32)
        self._prompts: dict[tuple[int, ...], int] = {}
        """Every prompt that came in, with its number."""
        self._prompt = np.full(slots, _NONE)
        """The number of the prompt that an active slot begins with; none where the text was filled in anew."""
        self._decoded = np.arange(slots)
        """The slots of the rows that `decode` works on, in their order."""

    @property
    def in_flight(self) -> int:
        """How many requests wait or decode."""
        return len(self._requests)

    def add(self, key: int, request: Request) -> None:
        """Lets a request wait for a slot."""
        self._requests[key], self._tokens[key] = request, []
        if request.logprobs:
            self._logprobs[key] = []
        self._waiting.append(key)

    @property
    def worth_filling(self) -> bool:
        """Whether `prefill` should be called now.

        A few idle slots wait for others: a call costs the same for one row as for all that it can take.
        """
        idle = int((self.request < 0).sum())
        return bool(self._waiting) and idle > (len(self.request) // 32 if idle < len(self.request) else 0)

    def fill(self) -> tuple["Prefill | None", "Copies | None"]:
        """Puts waiting requests into idle slots, neighbours into the same device's.

        A device computes a prompt once; its other samples' slots get copies from a slot that holds the prompt.
        """
        share = len(self.request) // self._devices
        rows = max(1, share // 8)
        idle = (self.request < 0).reshape(self._devices, share)
        total = int(idle.sum())
        going = min(len(self._waiting), total)
        prompts: list[list[tuple[int, tuple[int, ...]]]] = [[] for _ in range(self._devices)]
        copies: list[list[tuple[int, int]]] = [[] for _ in range(self._devices)]
        longest = 0
        for d in range(self._devices):
            held = {prompt: slot for slot, prompt in enumerate(self._prompt[d * share : (d + 1) * share].tolist())}
            free = np.flatnonzero(idle[d]).tolist()
            for slot in free[: -(-going * len(free) // total)]:  # as large a share as the device has of what is idle
                if not self._waiting:
                    break
                key = self._waiting[0]
                request, tokens = self._requests[key], self._tokens[key]
                text = request.prompt_ids + tuple(tokens)
                n = len(text) - 1  # the last token is the first that `decode` reads
                prompt = _NONE if tokens else self._prompts.setdefault(request.prompt_ids, len(self._prompts))
                if prompt != _NONE and prompt in held:
                    copies[d].append((held[prompt], slot))
                    longest = max(longest, n)
                elif len(prompts[d]) < rows:
                    prompts[d].append((slot, text[:n]))
                    held[prompt] = slot
                else:
                    break
                self._waiting.popleft()
                at = d * share + slot
                self.request[at], self.length[at], self._last[at], self._prompt[at] = key, n, text[n], prompt
                self._key[at] = request.seed >> 32 & 0xFFFFFFFF, request.seed & 0xFFFFFFFF
        return _prefill(prompts, rows), _copies(copies, share, longest)

    def state(self) -> tuple[np.ndarray, ...]:
        """What `decode` takes of each row: last token, length, number of tokens drawn so far, key, and slot.

        The rows of each device go from long to short. When no request waits and a quarter of them would do (or a
        sixteenth, and so on), the other rows are left out.
        """
        share = len(self.request) // self._devices
        active = (self.request >= 0).reshape(self._devices, share)
        rows, most_active = share, active.sum(axis=1).max()
        while not self._waiting and rows % (4 * self._group) == 0 and most_active <= rows // 4:
            rows //= 4
        lengths = self.length.reshape(self._devices, share)
        slots = np.argsort(-(lengths + active), axis=1, kind="stable")[:, :rows].astype(np.int32)
        self._decoded = order = (slots + share * np.arange(self._devices)[:, None]).reshape(-1)
        counts = [len(self._tokens[i]) if i >= 0 else 0 for i in self.request[order].tolist()]
        return (
            self._last[order], self.length[order], np.asarray(counts, np.int32), self._key[order], slots.reshape(-1)
        )  # fmt: skip

    def take(self, drawn_TB: np.ndarray, told_TB: np.ndarray) -> list[tuple[int, Completion]]:
        """Hands the tokens that `decode` made of `state`, and their log-probabilities, out to their requests.

        Returns the completions that ended, with their keys.
        """
        ended, decoded = [], len(drawn_TB)
        tokens_TB = np.zeros((decoded, len(self.request)), np.int32)
        logprobs_TB = np.zeros(tokens_TB.shape, np.float32)
        tokens_TB[:, self._decoded], logprobs_TB[:, self._decoded] = drawn_TB, told_TB
        stops_TB = np.isin(tokens_TB, self._how.stop_ids)
        for b in np.flatnonzero(self.request >= 0):
            key = int(self.request[b])
            tokens = self._tokens[key]
            stop = int(stops_TB[:, b].argmax()) + 1 if stops_TB[:, b].any() else decoded + 1
            room = decoded + 1 if self._recomputed_past is None else self._recomputed_past - int(self.length[b])
            outgrows = 0 < room <= decoded
            good = room if outgrows else decoded
            new = tokens_TB[: min(stop, good, self._how.max_tokens - len(tokens)), b].tolist()
            tokens += new
            self.tokens += len(new)
            if key in self._logprobs:
                self._logprobs[key] += logprobs_TB[: len(new), b].tolist()
            if stop <= good or len(tokens) == self._how.max_tokens:
                del self._requests[key], self._tokens[key]
                reason = "stop" if tokens[-1] in self._how.stop_ids else "length"
                logprobs = self._logprobs.pop(key, None)
                ended.append((key, Completion(tuple(tokens), reason, None if logprobs is None else tuple(logprobs))))
            elif outgrows:
                self._waiting.appendleft(key)
            else:
                continue
            self.request[b], self.length[b], self._prompt[b] = -1, 0, _NONE
        active = self.request >= 0
        self.length[active] += decoded
        self._last = tokens_TB[-1].copy()
        return ended


def _prefill(prompts: list[list[tuple[int, tuple[int, ...]]]], most: int) -> Prefill | None:
    """Each device's prompts (with their slots, at most `most`) as `decode.prefill` takes them; None for none at all."""
    needed = max(map(len, prompts))
    if not needed:
        return None
    rows = most
    while rows // 4 >= needed:  # few shapes, because each is compiled
        rows //= 4
    longest = max(len(prompt) for of_device in prompts for _, prompt in of_device)
    width = max(16, min(bucket(longest), 1 << max(0, longest - 1).bit_length()))
    ids = np.zeros((len(prompts), rows, width), np.int32)
    lengths, slots = np.zeros((2, len(prompts), rows), np.int32)
    for d, of_device in enumerate(prompts):
        for row, (slot, prompt) in enumerate(of_device):
            ids[d, row, : len(prompt)], lengths[d, row], slots[d, row] = prompt, len(prompt), slot
    used = np.array(list(map(len, prompts)), np.int32)
    return Prefill(ids.reshape(-1, width), lengths.reshape(-1), slots.reshape(-1), used)


def _copies(pairs: list[list[tuple[int, int]]], share: int, longest: int) -> Copies | None:
    """Each device's pairs of slots as `decode.copy_rows` takes them; None where there are none."""
    if not any(pairs):
        return None
    table = np.zeros((2, len(pairs), share), np.int32)
    for d, of_device in enumerate(pairs):
        table[:, d, : len(of_device)] = np.array(of_device, np.int32).reshape(-1, 2).T
    return Copies(
        table[0].reshape(-1), table[1].reshape(-1), np.array(list(map(len, pairs)), np.int32), bucket(longest)
    )
