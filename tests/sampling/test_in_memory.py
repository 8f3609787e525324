"""Trained weights reach the sampler in memory, with the bits that the exported folder gives, and never twice."""

import os
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drive_train import MODEL, tiny_model
from flax import nnx
from tiny_models import save

from o1p_jax.data.records import Request
from o1p_jax.devices.axes import SERVING_RULES
from o1p_jax.devices.mesh import make_mesh
from o1p_jax.models.decoder import param_shardings
from o1p_jax.models.hf.export import export_params
from o1p_jax.models.hf.hub import load_config
from o1p_jax.models.hf.load import load_params
from o1p_jax.models.source import exported_digest, find_model
from o1p_jax.runtime.files import sha256_file
from o1p_jax.runtime.sums import write_sums
from o1p_jax.sampling import SamplingParams, in_memory, sample
from o1p_jax.sampling.engine import JaxSampler

MESHES = ("1x1", "8x1", "2x4")
GREEDY = SamplingParams(temperature=0.0, max_tokens=16, stop_ids=(3,))
OPENED: list[str] = []
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@sys.addaudithook
def note(event: str, arguments: tuple) -> None:
    """Notes every file that is opened for writing, but for the cache of compiled programs."""
    if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike) and (arguments[2] or 0) & WRITES:
        path = os.fsdecode(arguments[0])
        if not path.startswith(os.environ["JAX_COMPILATION_CACHE_DIR"]):
            OPENED.append(path)


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    in_memory.let_go()


def exported(home: Path, source: Path, mesh: str, dtype: str | None, **changes) -> tuple[nnx.State, Path]:
    """Weights as if they had been trained on `mesh`, and the folder that they are exported to."""
    cfg, out = load_config(source), home / "exported"
    params = load_params(source, cfg, make_mesh(mesh), **changes)
    params = jax.tree.map(lambda a: a * jnp.float32(1.001), params)  # bits that bfloat16 has no room for
    export_params(params, cfg, out, source=source, dtype=dtype)
    write_sums(out, {file.name: sha256_file(file) for file in out.iterdir()})
    return params, out


def bytes_by_device(arrays: Iterable[jax.Array]) -> dict[jax.Device, dict[int, int]]:
    """Device -> address -> bytes of what lives there of these arrays."""
    found: dict[jax.Device, dict[int, int]] = defaultdict(dict)
    for array in arrays:
        for shard in array.addressable_shards:
            found[shard.device][shard.data.unsafe_buffer_pointer()] = shard.data.nbytes
    return found


class Peak:
    """The most bytes that live on a device beside those of the beginning, whenever something is waited for."""

    def __init__(self, monkeypatch):
        self._held = jax.live_arrays()  # an address that were given back might be given to what is counted
        self._names = {id(array) for array in self._held}
        self._before, self.bytes, wait = bytes_by_device(self._held), 0, jax.block_until_ready

        def waited(x):
            ready = wait(x)
            self.bytes = max(self.bytes, self.now())
            return ready

        monkeypatch.setattr(jax, "block_until_ready", waited)

    def now(self) -> int:
        new = [array for array in jax.live_arrays() if id(array) not in self._names]
        sizes = (
            sum(size for address, size in of.items() if address not in self._before[device])
            for device, of in bytes_by_device(new).items()
        )
        return max(sizes, default=0)


def size(params: nnx.State) -> int:
    """The bytes of the weights on the device that has most of them."""
    sizes: dict[jax.Device, int] = defaultdict(int)
    for weight in jax.tree.leaves(params):
        for shard in weight.addressable_shards:
            sizes[shard.device] += shard.data.nbytes
    return max(sizes.values())


@pytest.mark.parametrize(("case", "mesh"), [("qwen2_tied", "8x1"), ("qwen3_moe", "2x4")])
def test_greedy_tokens_are_those_of_the_loaded_folder(case, mesh, tmp_path):
    params, out = exported(tmp_path, save(case, tmp_path / "source"), mesh, "bfloat16")
    made = dict(mesh=mesh, dtype="float32", slots=8, max_length=80)
    rng = np.random.default_rng(0)
    asked = [Request(tuple(rng.integers(0, 96, n).tolist()), seed=n) for n in (1, 7, 30, 60)]
    in_memory.keep(params, load_config(out), out, "float32")
    kept = in_memory.kept(find_model(str(out)).digest, "float32")
    assert kept is not None
    loaded = sample(JaxSampler.load(out, GREEDY, **made), asked)
    assert len({answer.token_ids for answer in loaded}) == len(asked)
    for _ in range(2):  # for judging, and for the next round's samples
        ours = JaxSampler.load(out, GREEDY, **made, kept=kept)
        assert sample(ours, asked) == loaded
        ours.close()


MOVED = [(case, mesh) for case in ("qwen3_head_dim", "qwen2_tied", "qwen3_moe", "qwen3_moe_tied") for mesh in MESHES]


@pytest.mark.parametrize(("case", "mesh"), [*MOVED, ("qwen3_moe", "2x1")])
def test_the_folders_bits_without_a_file_and_memory_below_1_3_times_the_policys(case, mesh, tmp_path, monkeypatch):
    source, dtype = save(case, tmp_path / "source"), "bfloat16" if mesh == "8x1" else "float32"
    peak = Peak(monkeypatch)
    params, out = exported(tmp_path, source, mesh, "bfloat16")
    cfg, trained, there = load_config(out), size(params), sorted(tmp_path.rglob("*"))
    shardings = param_shardings(cfg, make_mesh(mesh), rules=SERVING_RULES)
    OPENED.clear()
    peak.bytes = 0
    in_memory.keep(params, cfg, out, dtype)
    kept = in_memory.kept(exported_digest(out), dtype)
    assert kept is not None
    moved = kept.on(shardings)
    assert OPENED == [] and sorted(tmp_path.rglob("*")) == there
    policy = max(trained, size(moved))
    assert policy <= peak.bytes <= 1.3 * policy and peak.now() == size(moved)
    loaded = load_params(out, cfg, make_mesh(mesh), dtype=jnp.dtype(dtype), shardings=shardings)
    assert jax.tree.structure(moved) == jax.tree.structure(loaded)
    for ours, theirs in zip(jax.tree.leaves(moved), jax.tree.leaves(loaded), strict=True):
        assert ours.sharding == theirs.sharding and ours.dtype == dtype
        np.testing.assert_array_equal(ours, theirs)


def test_every_value_is_cast_as_the_export_and_loading_cast_it():
    rng = np.random.default_rng(0)
    bits = np.concatenate([rng.integers(0, 2**32, 2**16, np.uint32), np.arange(2**12, dtype=np.uint32)])
    wanted = bits.view(np.float32)
    wanted = wanted[~np.isnan(wanted)]
    cast = in_memory._cast(in_memory._cast(jnp.asarray(wanted), "bfloat16"), "float32")
    np.testing.assert_array_equal(cast, wanted.astype(jnp.bfloat16).astype(np.float32))


@pytest.mark.parametrize(("dtype", "changes"), [("float16", {}), ("float32", {"splits": (1, 1)})])
def test_where_the_bits_might_be_others_nothing_is_kept(dtype, changes, tmp_path):
    params, out = exported(tmp_path, tiny_model(tmp_path / "source"), "1x1", dtype, **changes)
    in_memory.keep(params, load_config(out), out, "float32")
    assert in_memory.kept(exported_digest(out), "float32") is None and MODEL["num_hidden_layers"] == 2


def test_one_models_weights_are_kept_until_another_model_or_type_is_asked_for(tmp_path):
    source = tiny_model(tmp_path / "source")
    for asked in (("other", "float32"), (None, "float32"), ("same", "bfloat16")):
        params, out = exported(tmp_path, source, "1x1", "float32")
        digest = exported_digest(out)
        in_memory.keep(params, load_config(out), out, "float32")
        assert in_memory.is_kept(digest) and not in_memory.is_kept("other")
        assert in_memory.kept(digest, "float32") is not None
        assert in_memory.kept(digest if asked[0] == "same" else asked[0], asked[1]) is None
        assert not in_memory.is_kept(digest)
