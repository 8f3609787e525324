"""From a checkpoint back to a Hugging Face folder, with a model card.

`o1p_jax.json` in the folder says what it was made from: an export that is there already is not made again, and no
folder of someone else's is ever replaced. It and the card hold chosen settings only, no paths of the machine.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from o1p_jax.devices import processes
from o1p_jax.models.hf.export import export_params
from o1p_jax.models.hf.hub import load_config, resolve_model
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.files import atomic_folder, read_json, write_json
from o1p_jax.stages.card import PROVENANCE, _provenance, write_card
from o1p_jax.training import checkpoint
from o1p_jax.training.loop import trained_params


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


def _checkpoint(trained: Path) -> Path:
    if (trained / checkpoint.MANIFEST).is_file():
        return trained
    newest = checkpoint.newest(trained / "checkpoints")
    if newest is None:
        raise BadInput(f"{trained}: neither a checkpoint nor a run with a finished one; train first")
    return newest
