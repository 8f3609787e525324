"""Peak memory of importing and exporting a random model on 8 simulated devices, against the model's own bytes.

    python benchmarks/import_export.py --folder=/tmp/import_export --gib=2

On simulated devices all shards lie in the host's memory, so that 1.0 is what can't be avoided.
"""

import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from o1p_jax.runtime.entry import main
from o1p_jax.stages import cli

_LAYER_BYTES = 2**26  # of the model made here, about


@dataclass(frozen=True, kw_only=True)
class Arguments:
    folder: str
    """Where the model and its export are written; left there."""
    gib: float = 2.0
    """Size of the model, float32."""
    mesh: str = "8x1"
    measure: bool = False
    """Import and export in this process and print what it took; the command calls itself so."""


def command(argv: list[str]) -> None:
    args = cli.parse(Arguments, argv)
    model = Path(args.folder) / f"model-{args.gib:g}"
    if args.measure:
        measure(model, Path(args.folder) / "export", args.mesh)
        return
    if not model.exists():
        make_model(model, layers=max(1, round((args.gib * 2**30 - 2**28) / _LAYER_BYTES)))
    flags = [f"--folder={args.folder}", f"--gib={args.gib}", f"--mesh={args.mesh}", "--measure"]
    found = subprocess.run([sys.executable, __file__, *flags], check=True, stdout=subprocess.PIPE, text=True).stdout
    figures = json.loads(found.splitlines()[-1])
    nbytes = sum(f.stat().st_size for f in model.glob("*.safetensors"))
    print(f"model {nbytes / 2**30:.2f} GiB, mesh {args.mesh}")
    for stage, (peak, seconds) in figures.items():
        print(
            f"{stage:12} peak resident memory {peak / 2**30:.2f} GiB, {peak / nbytes:.2f} x the model, {seconds:.0f} s"
        )


def make_model(folder: Path, layers: int) -> None:
    """A random model whose layers have `_LAYER_BYTES` each, written a tensor at a time."""
    from o1p_jax.models.families import read_config
    from o1p_jax.models.hf.names import hf_tensors
    from o1p_jax.models.hf.safetensors import TensorSpec, write_safetensors
    from o1p_jax.runtime.files import atomic_folder, write_json

    config = {
        "model_type": "qwen3", "vocab_size": 32768, "hidden_size": 1024, "intermediate_size": 4096,
        "num_hidden_layers": layers, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 64,
    }  # fmt: skip
    rng = np.random.default_rng(0)
    specs = {t.name: TensorSpec(t.shape, np.dtype("float32")) for t in hf_tensors(read_config(config))}
    with atomic_folder(folder) as temporary:
        write_json(temporary / "config.json", config)
        write_safetensors(
            temporary / "model.safetensors", specs, lambda n: rng.standard_normal(specs[n].shape, dtype=np.float32)
        )


def measure(model: Path, out: Path, mesh: str) -> None:
    from o1p_jax.devices.mesh import make_mesh, set_up_devices

    set_up_devices(mesh)
    import shutil

    from o1p_jax.models.hf.export import export_params
    from o1p_jax.models.hf.hub import load_config
    from o1p_jax.models.hf.load import load_params

    shutil.rmtree(out, ignore_errors=True)
    devices = make_mesh(mesh)
    figures = {}

    def peak(stage: str, since: float) -> None:
        figures[stage] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, time.perf_counter() - since)

    start = time.perf_counter()
    peak("start", start)
    params = load_params(model, load_config(model), devices)
    peak("import", start)
    start = time.perf_counter()
    export_params(params, load_config(model), out, source=model)
    peak("export", start)
    print(json.dumps(figures))


if __name__ == "__main__":
    main(command)
