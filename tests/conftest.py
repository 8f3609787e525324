"""Every test runs on 8 simulated devices, with strict types and shapes, without a network."""

import os

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", JAX_PLATFORMS="cpu", TOKENIZERS_PARALLELISM="false")

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Folders whose signatures hold array shapes; elsewhere the checks would only cost time.
_SHAPED = ("devices", "evaluation", "methods", "models", "sampling", "training")
install_import_hook([f"o1p_jax.{name}" for name in _SHAPED], "beartype.beartype")
