import os
import time
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_models import CASES, save, torch_model
from weight_files import tensors

from o1p_jax.devices.mesh import make_mesh
from o1p_jax.models.families import read_config
from o1p_jax.models.hf import load
from o1p_jax.models.hf.folder import FolderTensors
from o1p_jax.models.hf.hub import load_config
from o1p_jax.models.hf.load import load_params
from o1p_jax.models.hf.names import hf_tensors
from o1p_jax.models.hf.safetensors import StoredTensor
from o1p_jax.runtime.errors import CorruptData
from o1p_jax.runtime.files import write_json


def test_each_device_holds_its_own_part(tmp_path):
    source = save("llama", tmp_path)
    cfg = load_config(source)
    params = load_params(source, cfg, make_mesh("4x2"), dtype=jnp.bfloat16)
    q = params["stacks"][0]["q"].get_value()
    assert q.dtype == jnp.bfloat16
    assert q.addressable_shards[0].data.shape == (3, 16, 2, 16)
    expected = torch_model("llama").model.layers[2].self_attn.q_proj.weight.detach().numpy()
    np.testing.assert_array_equal(np.asarray(q[2]).reshape(64, 64).T, expected.astype(jnp.bfloat16))


@pytest.mark.parametrize(
    ("case", "mesh"),
    [
        *(("llama", mesh) for mesh in ("8x1", "4x2", "2x4", "1x8")),
        *(("phi3", mesh) for mesh in ("4x2", "1x8")),
        *(("gpt_oss", mesh) for mesh in ("fsdp:2,expert:2,tensor:2", "expert:4,tensor:2", "8x1")),
        ("mixtral", "fsdp:2,expert:4"),
    ],
)
def test_a_host_reads_each_byte_once(case, mesh, tmp_path, monkeypatch):
    config = CASES[case].to_dict() | dict(num_attention_heads=8, num_key_value_heads=8, head_dim=8)
    cfg, rng = read_config(config), np.random.default_rng(0)
    write_json(tmp_path / "config.json", config)
    weights = {t.name: rng.normal(size=t.shape).astype(np.float32) for t in hf_tensors(cfg)}
    save_file(weights, tmp_path / "model.safetensors")
    counted = []

    def read(stored, rows, of=StoredTensor.read):
        found = of(stored, rows)
        counted.append(found.nbytes)
        return found

    monkeypatch.setattr(StoredTensor, "read", read)
    params = load_params(tmp_path, cfg, make_mesh(mesh))
    assert sum(counted) == sum(a.nbytes for a in tensors(tmp_path).values())
    jax.tree.map(np.testing.assert_array_equal, params, load_params(tmp_path, cfg, make_mesh("1x1")))


def test_one_tensor_is_read_ahead_and_no_more(tmp_path, monkeypatch):
    source = save("llama", tmp_path)
    total, read, put = len(tensors(source)), StoredTensor.read, load._Read.put
    rows_read: list[weakref.ref] = []
    most = placed = 0

    def counted(stored, rows):
        nonlocal most
        found = read(stored, rows)
        rows_read.append(weakref.ref(found))
        most = max(most, sum(ref() is not None for ref in rows_read))
        return found

    def late(self, rows):
        nonlocal placed
        placed += 1
        deadline = time.monotonic() + 60
        while len(rows_read) < min(placed + 1, total):
            assert time.monotonic() < deadline, "nothing is read meanwhile"
            time.sleep(0.001)
        put(self, rows)

    monkeypatch.setattr(StoredTensor, "read", counted)
    monkeypatch.setattr(load._Read, "put", late)
    load_params(source, load_config(source), make_mesh("4x2"))
    assert len(rows_read) == placed == total and most == 2


def test_a_file_that_becomes_shorter_is_told(tmp_path, monkeypatch):
    source = save("llama", tmp_path)
    check = FolderTensors.check

    def cut(self, *args):
        check(self, *args)
        os.truncate(source / "model.safetensors", 2**10)

    monkeypatch.setattr(FolderTensors, "check", cut)
    with pytest.raises(CorruptData, match=r"model.safetensors: shorter than its header says"):
        load_params(source, load_config(source), make_mesh("1x1"))
