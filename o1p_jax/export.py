"""From a checkpoint back to a Hugging Face folder, with a model card.

`o1p_jax.json` in the folder says what it was made from: an export that is there already is not made again, and no
folder of someone else's is ever replaced. It and the card hold chosen settings only, no paths of the machine.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from jinja2 import Environment, PackageLoader, StrictUndefined

from o1p_jax import checkpoint, processes
from o1p_jax.config import EMBEDDED, MethodConfig
from o1p_jax.errors import BadInput
from o1p_jax.files import atomic_folder, read_json, sha256_file, write_atomic, write_json
from o1p_jax.models.hf import export_params, load_config, resolve_model
from o1p_jax.train import trained_params

PROVENANCE = "o1p_jax.json"
_TOLD = re.compile(
    r"seed|sampling\.(samples_per_problem|temperature|top_p|top_k|max_tokens)"
    r"|(method|batch|optim)\.\w+|compute\.(dtype|trainable_layers)|evaluation\.aes_as_printed"
)


def export(trained: Path, out: Path, mesh: Mesh, *, data: Mapping[str, Any] | None = None) -> Path:
    """Writes the model of `trained`, a run folder (its newest whole checkpoint) or a checkpoint's folder, to `out`.

    `data` are figures of the training set for the card (name -> value). The folder appears whole or not at all.
    Raises BadInput where there is no checkpoint or `out` holds something else, CorruptData for a damaged checkpoint.
    """
    folder = _checkpoint(trained)
    facts = checkpoint.facts_of(folder)
    provenance = _provenance(folder, facts) | {"data": dict(data or {})}
    if processes.once(lambda: _is_there(out, provenance)):
        return out
    source = resolve_model(facts["model"], facts["revision"])
    params, _ = trained_params(folder, source, mesh)
    if processes.leader():
        with atomic_folder(out) as temporary:
            export_params(params, load_config(source), temporary, source=source)
            write_json(temporary / PROVENANCE, provenance)
            write_card(temporary)
    else:
        export_params(params, load_config(source), None, source=source)
    processes.once(lambda: None)  # nobody goes on before the folder is there
    return out


def _is_there(out: Path, provenance: Mapping[str, Any]) -> bool:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not (out / PROVENANCE).is_file():
        raise BadInput(f"out={out}: exists and was not exported by this program; name another folder")
    return read_json(out / PROVENANCE) == provenance


def write_card(folder: Path, comparison: str | None = None) -> None:
    """Writes the model card, README.md, of an exported folder; `comparison` is the before/after table as Markdown."""
    environment = Environment(
        loader=PackageLoader("o1p_jax"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    card = environment.get_template("card.md.j2").render(read_json(folder / PROVENANCE), comparison=comparison)
    write_atomic(folder / "README.md", card)


def _checkpoint(trained: Path) -> Path:
    if (trained / checkpoint.MANIFEST).is_file():
        return trained
    newest = checkpoint.newest(trained / "checkpoints")
    if newest is None:
        raise BadInput(f"{trained}: neither a checkpoint nor a run with a finished one; train first")
    return newest


def _provenance(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the card is made from; `facts` are those of the checkpoint, dotted config fields among them."""
    prefix = "method."
    method = MethodConfig(**{name.removeprefix(prefix): v for name, v in facts.items() if name.startswith(prefix)})
    resolved = dict(facts) | {"method.ratio": method.ratio_kind, "method.normalize": method.normalization}
    model = facts["model"]
    on_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", model) is not None and not Path(model).exists()
    return {
        "base": _public(model),
        "hub_name": model if on_hub else None,
        "embedded": model == EMBEDDED,
        "revision": facts["revision"],
        "problems": _public(facts["problems.train"]),
        "step": int(folder.name),
        "checkpoint_sha256": sha256_file(folder / checkpoint.MANIFEST),
        "settings": {name: value for name, value in resolved.items() if _TOLD.fullmatch(name)},
    }


def _public(name: str) -> str:
    """A path's last part: a model that is passed on tells nothing of the machine it was made on."""
    return Path(name).name if name.startswith(("/", "~", ".")) or Path(name).exists() else name
