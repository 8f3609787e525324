"""The embedded sampler: continuous batching on the training mesh.

The host keeps a table of slots. Between two calls of `decode` it takes ended rows out, puts waiting prompts into the
slots that these leave, and sorts the rows by length; all else that the host does (text, shards, claims), it
does while the devices decode.

Legend: B slots on all devices together, T tokens of a call.
"""

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
from o1p_jax.sampling.decode import STEPS, Layout, bucket, copy_rows, decode, empty_cache, grow, prefill
from o1p_jax.sampling.draw import Draw
from o1p_jax.sampling.in_memory import Kept
from o1p_jax.sampling.slots import Slots

_RESERVE = 4
"""One request waits for so many slots, at most, so that a slot is filled as soon as it is free."""
_CPU_GROUP = 4
"""How many rows a CPU device reads to a common length."""
FIRST_CAPACITY = 1024
"""Positions of the cache at first; doubled when a row outgrows them."""


class JaxSampler:
    """A sampler with a model that is in memory already.

    `params` may lie anywhere; the sampler splits them over "tensor", experts over "expert" too, and otherwise holds
    them whole on every data-parallel device. `slots` is rounded up to a number that the devices share evenly. Prompt
    and completion have at most `max_length` tokens together.
    """

    name = "jax"
    version = f"jax {jax.__version__}"
    seeds_each = True

    def __init__(
        self,
        cfg: DecoderConfig,
        params: nnx.State,
        mesh: Mesh,
        how: SamplingParams,
        *,
        dtype: str,
        slots: int,
        max_length: int,
    ):
        splits = stack_lengths(params)
        self._cfg, devices = cfg, devices_along(mesh, SAMPLING_AXES)
        self._params = jax.device_put(params, param_shardings(cfg, mesh, splits, SERVING_RULES))
        share = -(-slots // devices)
        group = min(share, _CPU_GROUP) if jax.default_backend() == "cpu" else share
        slots = -(-share // group) * group * devices
        self._layout = Layout(graph(cfg, splits), mesh, jnp.dtype(dtype), group)
        self._draw = Draw(how.temperature, how.top_p, how.top_k)
        self._longest = bucket(max_length + STEPS)
        self._cache = empty_cache(cfg, slots, min(FIRST_CAPACITY, self._longest), self._layout)
        self._slots = Slots(how, slots, devices, group, cfg.recomputed_past)
        self._decoded: list[jax.Array] = []
        """The tokens and log-probabilities of the call of `decode` that the devices work on; empty without one."""

    @classmethod
    def load(
        cls, folder: Path, how: SamplingParams, *, mesh: str, dtype: str, slots: int, max_length: int,
        kept: Kept | None = None,
    ) -> "JaxSampler":  # fmt: skip
        """Makes a sampler from a Hugging Face folder, or from its weights that are `kept` in memory.

        `slots` are those of the whole job: each process has its devices' share of them.
        """
        cfg, devices = load_config(folder), local_mesh(mesh)
        slots = -(-slots // processes.count())
        shardings = param_shardings(cfg, devices, rules=SERVING_RULES)
        if kept is None:
            params = load_params(folder, cfg, devices, dtype=jnp.dtype(dtype), shardings=shardings)
        else:
            params = kept.on(shardings)
        return cls(cfg, params, devices, how, dtype=dtype, slots=slots, max_length=max_length)

    @property
    def tokens(self) -> int:
        """See `Sampler.tokens`."""
        return self._slots.tokens

    @property
    def room(self) -> int:
        """See `Sampler.room`."""
        slots = len(self._slots.request)
        return slots + -(-slots // _RESERVE) - self._slots.in_flight

    def add(self, key: int, request: Request) -> None:
        """See `Sampler.add`."""
        self._slots.add(key, request)

    def step(self) -> list[tuple[int, Completion]]:
        """See `Sampler.step`; the devices decode on while the caller works on what it is given.

        Raises `NonFinite` where the logits are not finite.
        """
        ended = []
        if self._decoded:
            tokens_TB, logprobs_TB = map(np.asarray, self._decoded)
            if tokens_TB.max() >= self._cfg.vocab_size:
                raise NonFinite(
                    "sampling: the model's logits are not finite; check its weights, or set compute.dtype=float32"
                )
            ended = self._slots.take(tokens_TB, logprobs_TB)
        self._decoded = self._decode() if self._slots.in_flight else []
        return ended

    def _decode(self) -> list[jax.Array]:
        """Sets the devices to work: on waiting prompts, and on the next tokens, which are returned as `_decoded`."""
        slots = self._slots
        while slots.worth_filling:
            new, copies = slots.fill()
            if new is not None:
                self._make_room(new.ids_BP.shape[1])
                self._cache = prefill(self._params, self._cache, *self._on_rows(*new), layout=self._layout)
            if copies is not None:
                *pairs, size = copies
                self._cache = copy_rows(self._cache, *self._on_rows(*pairs), size=size, layout=self._layout)
        self._make_room(int(slots.length.max()) + STEPS)
        self._cache, *decoded = decode(
            self._params, self._cache, *self._on_rows(*slots.state()), draw=self._draw, layout=self._layout
        )
        return decoded

    def close(self) -> None:
        """Gives the weights' and the cache's memory back."""
        del self._params, self._cache, self._decoded

    def _on_rows(self, *arrays: np.ndarray) -> list[jax.Array]:
        """The arrays on the devices, split by rows."""
        # Copied, because a CPU device may use the host's own memory, and the host goes on when the first device along
        # "tensor" has handed its tokens in: another may still be reading the lengths that the host then counts up.
        return jax.device_put(
            list(map(np.array, arrays)), NamedSharding(self._layout.mesh, PartitionSpec(SAMPLING_AXES))
        )

    def _make_room(self, needed: int) -> None:
        """Lets the cache grow where it has less than `needed` positions."""
        if needed > self._cache.capacity:
            wanted = max(needed, min(2 * self._cache.capacity, self._longest))
            self._cache = grow(self._cache, bucket(wanted))
