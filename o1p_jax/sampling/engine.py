"""The embedded sampler: continuous batching on the training mesh.

The host keeps a table of slots. Between two calls of `decode` it hands finished rows out, puts waiting prompts into the
slots that these leave, and keeps rows of like length together.

Legend: B slots on all devices together, T tokens of a call.
"""

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from o1p_jax.data.records import Completion, Request
from o1p_jax.devices import processes
from o1p_jax.devices.axes import SAMPLING_AXES, SERVING_RULES
from o1p_jax.devices.mesh import devices_along, local_mesh
from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.decoder import graph, param_shardings
from o1p_jax.models.hf.hub import load_config
from o1p_jax.models.hf.load import load_params
from o1p_jax.models.hf.names import stack_lengths
from o1p_jax.runtime.errors import NonFinite
from o1p_jax.sampling.base import SamplingParams
from o1p_jax.sampling.decode import Cache, Layout, bucket, decode, empty_cache, grow, prefill, reorder
from o1p_jax.sampling.draw import Draw

_STEPS = 16
"""How many tokens a row decodes in a call."""
_CPU_GROUP = 4
"""How many rows a CPU device reads to a common length."""
FIRST_CAPACITY = 1024
"""Positions of the cache at first; doubled when a row outgrows them."""


class JaxSampler:
    """A sampler with a model that is in memory already.

    `params` may lie anywhere; the sampler splits them over "tensor", experts over "expert" too, and otherwise holds
    them whole on every data-parallel device. `slots` is rounded up to a number that the devices share evenly.
    """

    name = "jax"
    version = f"jax {jax.__version__}"
    seeds_each = True

    def __init__(self, cfg: DecoderConfig, params: nnx.State, mesh: Mesh, *, dtype: str, slots: int):
        splits = stack_lengths(params)
        self._cfg, self._devices = cfg, devices_along(mesh, SAMPLING_AXES)
        self._params = jax.device_put(params, param_shardings(cfg, mesh, splits, SERVING_RULES))
        share = -(-slots // self._devices)
        group = min(share, _CPU_GROUP) if jax.default_backend() == "cpu" else share
        self._slots = -(-share // group) * group * self._devices
        self._layout = Layout(graph(cfg, splits), mesh, jnp.dtype(dtype), group, _STEPS)

    @classmethod
    def load(cls, folder: Path, *, mesh: str, dtype: str, slots: int) -> "JaxSampler":
        """Makes a sampler from a Hugging Face folder.

        `slots` are those of the whole job: each process has its devices' share of them.
        """
        cfg, devices = load_config(folder), local_mesh(mesh)
        slots = -(-slots // processes.count())
        params = load_params(
            folder, cfg, devices, dtype=jnp.dtype(dtype), shardings=param_shardings(cfg, devices, rules=SERVING_RULES)
        )
        return cls(cfg, params, devices, dtype=dtype, slots=slots)

    def sample(
        self, requests: Sequence[Request], params: SamplingParams, on_done: Callable[[int], None]
    ) -> list[Completion]:
        """See `Sampler.sample`; raises `NonFinite` where the logits are not finite."""
        slots = _Slots(requests, params, self._slots, self._devices, self._cfg.recomputed_past)
        needed = bucket(slots.longest_prompt + params.max_tokens + _STEPS)
        cache = empty_cache(
            self._cfg, self._slots, min(needed, max(FIRST_CAPACITY, bucket(slots.longest_prompt))), self._layout
        )
        draw = Draw(params.temperature, params.top_p, params.top_k)
        while slots.busy:
            while slots.worth_filling:
                ids_BP, *places = slots.fill()
                cache = self._with_room(cache, ids_BP.shape[1])
                cache = prefill(self._params, cache, *self._on_rows(ids_BP, *places), layout=self._layout)
            if (order := slots.better_order(self._layout.group, cache.capacity)) is not None:
                cache = reorder(cache, *self._on_rows(order), layout=self._layout)
            cache = self._with_room(cache, int(slots.length.max()) + _STEPS)
            cache, tokens_TB = decode(
                self._params, cache, *self._on_rows(*slots.state()), draw=draw, layout=self._layout
            )
            tokens_TB = np.asarray(tokens_TB)
            if tokens_TB.max() >= self._cfg.vocab_size:
                raise NonFinite(
                    "sampling: the model's logits are not finite; check its weights, or set compute.dtype=float32"
                )
            on_done(slots.take(tokens_TB))
        return slots.completions()

    def close(self) -> None:
        """Gives the weights' memory back."""
        del self._params

    def _on_rows(self, *arrays: np.ndarray) -> list[jax.Array]:
        """The arrays on the devices, split by rows."""
        # Copied, because a CPU device may use the host's own memory, and the host goes on when the first device along
        # "tensor" has handed its tokens in: another may still be reading the lengths that the host then counts up.
        return jax.device_put(
            list(map(np.array, arrays)), NamedSharding(self._layout.mesh, PartitionSpec(SAMPLING_AXES))
        )

    def _with_room(self, cache: Cache, needed: int) -> Cache:
        """The cache, with room for `needed` positions."""
        return cache if needed <= cache.capacity else grow(cache, bucket(max(needed, 2 * cache.capacity)))


class _Slots:
    """A table of which request decodes in which slot, and how far it is. The slots of a device lie side by side.

    A text that grows past `recomputed_past` tokens leaves its slot there and waits, before all others, to be filled in
    anew with what it has become.
    """

    def __init__(
        self, requests: Sequence[Request], params: SamplingParams, slots: int, devices: int, recomputed_past: int | None
    ):
        self._requests, self._params, self._devices = requests, params, devices
        self._recomputed_past = recomputed_past
        self._waiting = deque(range(len(requests)))
        self._tokens: list[list[int]] = [[] for _ in requests]
        self.request = np.full(slots, -1)
        self.length = np.zeros(slots, np.int32)
        self._last = np.zeros(slots, np.int32)
        self._key = np.zeros((slots, 2), np.uint32)
        self.longest_prompt = max((len(r.prompt_ids) for r in requests), default=0)

    @property
    def busy(self) -> bool:
        """Whether a request waits or decodes."""
        return bool(self._waiting) or bool((self.request >= 0).any())

    @property
    def worth_filling(self) -> bool:
        """Whether `prefill` should be called now.

        A few idle slots wait for others: a call costs the same for one row as for all that it can take.
        """
        idle = int((self.request < 0).sum())
        return bool(self._waiting) and idle > (len(self.request) // 16 if idle < len(self.request) else 0)

    def fill(self) -> tuple[np.ndarray, ...]:
        """Puts waiting requests into idle slots; returns (prompts, lengths, slots, rows used) for `prefill`."""
        share = len(self.request) // self._devices
        rows = max(1, share // 8)
        chosen = [
            (d, row, slot)
            for row in range(rows)
            for d in range(self._devices)
            for slot in np.flatnonzero(self.request[d * share : (d + 1) * share] < 0)[row : row + 1]
        ]
        prompts = [self._requests[i].prompt_ids + tuple(self._tokens[i]) for i in list(self._waiting)[: len(chosen)]]
        longest = max(map(len, prompts)) - 1
        width = max(16, min(bucket(longest), 1 << (longest - 1).bit_length()))
        ids = np.zeros((self._devices, rows, width), np.int32)
        lengths, slots = np.zeros((2, self._devices, rows), np.int32)
        used = np.zeros(self._devices, np.int32)
        for (d, row, slot), prompt in zip(chosen, prompts, strict=False):
            i = self._waiting.popleft()
            n = len(prompt) - 1  # the last token is the first that `decode` reads
            ids[d, row, :n], lengths[d, row], slots[d, row], used[d] = prompt[:n], n, slot, row + 1
            at, seed = d * share + slot, self._requests[i].seed
            self.request[at], self.length[at], self._last[at] = i, n, prompt[n]
            self._key[at] = seed >> 32 & 0xFFFFFFFF, seed & 0xFFFFFFFF
        return ids.reshape(-1, ids.shape[-1]), lengths.reshape(-1), slots.reshape(-1), used

    def better_order(self, group: int, capacity: int) -> np.ndarray | None:
        """The rows of each device from long to short; None if moving the cache's rows of `capacity` positions does not
        pay.

        When no request waits and a quarter of the rows would do, the other rows are left out.
        """
        rows = len(self.request) // self._devices
        active = (self.request >= 0).reshape(self._devices, rows)
        lengths = self.length.reshape(self._devices, rows)
        order = np.argsort(-(lengths + active), axis=1, kind="stable").astype(np.int32)
        shrinks = not self._waiting and rows % (4 * group) == 0 and active.sum(axis=1).max() <= rows // 4

        def positions_read(lengths: np.ndarray) -> int:
            return sum(bucket(int(n)) for n in lengths.reshape(-1, group).max(axis=1)) * group

        saved = positions_read(lengths) - positions_read(np.take_along_axis(lengths, order, 1))
        if not shrinks and _STEPS * saved <= capacity * len(self.request):  # what the move costs, within a factor
            return None
        order = order[:, : rows // 4] if shrinks else order
        at = (order + np.arange(self._devices)[:, None] * rows).reshape(-1)
        for name in ("request", "length", "_last", "_key"):
            setattr(self, name, getattr(self, name)[at])
        return order.reshape(-1)

    def state(self) -> tuple[np.ndarray, ...]:
        """The last tokens, lengths, numbers of tokens drawn so far and keys, as `decode` takes them."""
        counts = [len(self._tokens[i]) if i >= 0 else 0 for i in self.request]
        return self._last, self.length, np.asarray(counts, np.int32), self._key

    def take(self, tokens_TB: np.ndarray) -> int:
        """Hands the decoded tokens out to their requests; returns how many requests that finished."""
        stops_TB = np.isin(tokens_TB, self._params.stop_ids)
        done, decoded = 0, len(tokens_TB)
        for b in np.flatnonzero(self.request >= 0):
            tokens = self._tokens[self.request[b]]
            stop = int(stops_TB[:, b].argmax()) + 1 if stops_TB[:, b].any() else decoded + 1
            room = decoded + 1 if self._recomputed_past is None else self._recomputed_past - int(self.length[b])
            outgrows = 0 < room <= decoded
            good = room if outgrows else decoded
            tokens += tokens_TB[: min(stop, good, self._params.max_tokens - len(tokens)), b].tolist()
            if stop <= good or len(tokens) == self._params.max_tokens:
                done += 1
            elif outgrows:
                self._waiting.appendleft(int(self.request[b]))
            else:
                continue
            self.request[b], self.length[b] = -1, 0
        active = self.request >= 0
        self.length[active] += decoded
        self._last = tokens_TB[-1].copy()
        return done

    def completions(self) -> list[Completion]:
        """The completions of all requests, in the requests' order."""
        return [
            Completion(tuple(tokens), "stop" if tokens[-1] in self._params.stop_ids else "length")
            for tokens in self._tokens
        ]
