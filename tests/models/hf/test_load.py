import jax.numpy as jnp
import numpy as np
from tiny_models import save, torch_model

from o1p_jax.devices.mesh import make_mesh
from o1p_jax.models.hf.hub import load_config
from o1p_jax.models.hf.load import load_params


def test_each_device_reads_its_own_part(tmp_path):
    source = save("llama", tmp_path)
    cfg = load_config(source)
    params = load_params(source, cfg, make_mesh("4x2"), dtype=jnp.bfloat16)
    q = params["stacks"][0]["q"].get_value()
    assert q.dtype == jnp.bfloat16
    assert q.addressable_shards[0].data.shape == (3, 16, 2, 16)
    expected = torch_model("llama").model.layers[2].self_attn.q_proj.weight.detach().numpy()
    np.testing.assert_array_equal(np.asarray(q[2]).reshape(64, 64).T, expected.astype(jnp.bfloat16))
