"""Chips and pods by name: what a chip can do, how many chips a pod has, and how they are joined."""

import math
from dataclasses import dataclass

from o1p_jax.runtime.errors import BadInput

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One kind of accelerator. The rates are a chip's peaks; JAX sees `devices` devices in a chip."""

    flops: float
    """bfloat16 operations a second; a multiplication and an addition count as two."""
    memory: float
    """The size of a chip's memory in bytes."""
    memory_bandwidth: float
    """Bytes a second between a chip and its memory."""
    link_bandwidth: float
    """Bytes a second in one direction over one link of a torus, or over all of a GPU's NVLink together."""
    torus: int = 0
    """Dimensions of the torus that the chips form; 0 is a switch that joins the chips of a host."""
    network_bandwidth: float = 0.0
    """Bytes a second and chip in one direction between hosts; 0 for a torus, whose links join the hosts as well."""
    devices: int = 1
    cores: int = 1
    """The number of cores of a chip; names such as v5p-64 count cores."""
    product_share: float
    """Share of `flops` that products with weights reach in a training step."""
    attention_share: float
    """Share of `flops` that attention's kernel reaches, over the tiles that it computes."""
    float32_share: float
    """Share of `flops` that products of float32 reach at best, without rounding their factors."""
    launch: float = 0.0
    """Seconds from one short kernel to the next; 0 where a device runs a whole step by itself."""
    usable: float = 1.0
    """Share of the memory that JAX takes; on a GPU, XLA_PYTHON_CLIENT_MEM_FRACTION."""
    price: float | None = None
    """US dollars a chip and hour, on demand, where a list price is known."""


CHIPS = {
    "v5e": Chip(flops=197e12, memory=16 * GIB, memory_bandwidth=819e9, link_bandwidth=50e9, torus=2,
                product_share=0.95, attention_share=0.3, float32_share=1 / 6, price=1.2),
    "v5p": Chip(flops=459e12, memory=95 * GIB, memory_bandwidth=2765e9, link_bandwidth=100e9, torus=3,
                cores=2, product_share=0.9, attention_share=0.3, float32_share=1 / 6, price=4.2),
    "v6e": Chip(flops=918e12, memory=32 * GIB, memory_bandwidth=1638e9, link_bandwidth=100e9, torus=2,
                product_share=0.7, attention_share=0.3, float32_share=1 / 6, price=2.7),
    "7x": Chip(flops=2307e12, memory=192 * GIB, memory_bandwidth=7380e9, link_bandwidth=100e9, torus=3,
               devices=2, cores=2, product_share=0.8, attention_share=0.3, float32_share=1 / 6),
    "h100": Chip(flops=989e12, memory=80e9, memory_bandwidth=3350e9, link_bandwidth=450e9,
                 network_bandwidth=50e9, product_share=0.6, attention_share=0.5, float32_share=67 / 989,
                 launch=3.3e-6, usable=0.75),
}  # fmt: skip
"""The chips by name.

TPUs: docs.cloud.google.com/tpu/docs/{v5e,v5p,v6e,tpu7x}, where a chip's links are summed over both directions. H100
SXM: NVIDIA's data sheet (dense), one 400 Gb/s adapter a GPU. Prices: cloud.google.com/tpu/pricing, on demand in the
US; GPU prices differ too much between sellers to stand here.

Shares of products, and of attention on TPUs (one number for all of them): fitted to eight published runs, to a
twentieth (`python benchmarks/forecast.py --fit`). Attention on an H100: cuDNN's 600 TFLOP/s forward and 518 backward at
head size 128 and 8,192 tokens (arXiv 2407.08608, figures 5 and 6) are .54 of the peak together; taken as half the
peak, since training has shorter texts as well. float32: six bfloat16 products on a TPU (jax.lax.Precision.HIGHEST), the
data sheet's 67 TFLOP/s on an H100. Launches: 80 short kernels in 260 microseconds
(cuda.juliagpu.org/dev/usage/graphs).
"""


@dataclass(frozen=True, kw_only=True)
class Topology:
    """A pod: a chip's name, and the shape that the pod's chips are joined in (for GPUs: hosts x GPUs a host)."""

    kind: str
    shape: tuple[int, ...]

    @property
    def chip(self) -> Chip:
        return CHIPS[self.kind]

    @property
    def chips(self) -> int:
        return math.prod(self.shape)

    @property
    def devices(self) -> int:
        return self.chips * self.chip.devices

    def __str__(self) -> str:
        return f"{self.kind}:{'x'.join(map(str, self.shape))}"

    @classmethod
    def parse(cls, text: str) -> "Topology":
        """Reads 'v5p:4x4x4' (chips of a torus) or 'h100:8x8' (hosts x GPUs a host); raises `BadInput`."""
        kind, _, shape = text.lower().partition(":")
        numbers = shape.split("x")
        wrong = kind not in CHIPS or not all(n.isascii() and n.isdigit() and int(n) >= 1 for n in numbers)
        if wrong or len(numbers) != (CHIPS[kind].torus or 2):
            shapes = ", ".join(f"{name}:{'x'.join('4' * (chip.torus or 2))}" for name, chip in CHIPS.items())
            raise BadInput(f"topology={text}: must be a chip and the shape of the pod, such as {shapes}")
        return cls(kind=kind, shape=tuple(map(int, numbers)))
