"""o1p_jax: length-harmonizing fine-tuning (O1-Pruner, arXiv 2501.12570) in JAX and Flax."""

__version__ = "0.1.0"
