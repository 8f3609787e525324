"""Every test runs on 8 simulated devices, with strict types and shapes, without a network."""

import gc
import os
import shutil
import tempfile

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", JAX_PLATFORMS="cpu", TOKENIZERS_PARALLELISM="false")
os.environ.update(OMP_NUM_THREADS="1")  # PyTorch's second thread does little here but wait for the first, busily
# Compiling is most of the work, and the same small programs come back in many tests and in the processes they start:
# one cache for all of them, named by the process that runs the tests. A folder named from outside is used and kept.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(tempfile.gettempdir(), f"o1p-compiled-{os.getpid()}"))
# More parts compile longer, all told, and JAX 0.10's emitters of fusions several times as long as the ones before them.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_cpu_parallel_codegen_split_count=1 --xla_backend_extra_options="
    "xla_cpu_disable_new_fusion_emitters=true,xla_cpu_disable_loop_unrolling=true",
)
os.environ.update(JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0", JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="-1")

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 8)
# What is compiled here runs for milliseconds. The processes that tests start optimise as users' do.
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Folders and modules whose signatures hold array shapes; elsewhere the checks would only cost time.
_SHAPED = ("devices", "evaluation", "methods", "models", "sampling", "training.logprobs", "training.optimizer",
           "training.step", "training.trainable")  # fmt: skip
install_import_hook([f"o1p_jax.{name}" for name in _SHAPED], "beartype.beartype")


def pytest_xdist_auto_num_workers(config):
    """Three processes for the whole suite, none beside this one for the files or tests that are named.

    Two cores idle for an eighth of the time with two: a test waits for the process it kills, or for the disk.
    """
    return 3 if config.args_source is not config.ArgsSource.ARGS else 0


def pytest_collection_modifyitems(items):
    """Files with slow tests come first, so that no process is left with one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish():
    """Python looks for garbage after every 700 new objects, and tracing makes millions, nearly all of which stay."""
    gc.freeze()
    gc.set_threshold(200_000, 50, 50)


def pytest_unconfigure():
    cache = os.environ["JAX_COMPILATION_CACHE_DIR"]
    if cache.endswith(f"o1p-compiled-{os.getpid()}"):
        shutil.rmtree(cache, ignore_errors=True)
