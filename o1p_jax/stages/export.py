"""The stage that makes a Hugging Face folder, with a model card, of a checkpoint.

`o1p_jax.json` in the folder says what it was made from, and `o1p_jax.sha256` lists what was written: an export that is
there already is not made again, and no file of someone else's is ever replaced or removed. `o1p_jax.json` and the card
hold chosen settings only, no paths of the machine.
"""

from pathlib import Path
from typing import Any

from flax import nnx
from jax.sharding import Mesh

from o1p_jax.devices import processes
from o1p_jax.models.hf.export import export_params
from o1p_jax.models.hf.hub import CONFIG
from o1p_jax.models.source import SourceModel
from o1p_jax.runtime.apart import check_apart
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.files import read_json, write_json
from o1p_jax.runtime.progress import say
from o1p_jax.runtime.sums import SUMS, check_sums, filled, is_empty, read_sums, sum_of
from o1p_jax.stages.card import PROVENANCE, provenance, write_card
from o1p_jax.stages.run_folder import hint_at_rounds
from o1p_jax.training import checkpoint
from o1p_jax.training.loop import trained_params

_ALIKE = 0.99
"""The cosine of the trained and the exported change from which on nothing is said of what was lost."""


def export(folder: Path, out: Path, mesh: Mesh, source: SourceModel, dtype: str | None = None) -> nnx.State | None:
    """Writes the model of the checkpoint in `folder`, which was trained from `source`, to `out`.

    The weights get the type `dtype`; None: as `source` has them. A line says what that leaves of what training changed.
    Returns the weights as they were trained, in float32; None where the export was there already.
    Raises BadInput where `out` holds something else or is not apart from `source` and the checkpoint, or `source`
    holds other weights than those that the training began from; CorruptData for a damaged checkpoint.
    """
    check_apart("out", out, source.folder, "the model that was trained")
    check_apart("out", out, folder, "the checkpoint")
    if processes.once(lambda: is_exported(folder, out, dtype)):
        return None
    params, _ = trained_params(folder, source, mesh)
    if processes.leader():
        with filled(out, CONFIG) as temporary:  # without config.json no program loads the folder
            rounding = export_params(params, source.decoder, temporary, source=source.folder, dtype=dtype).figures
            write_json(temporary / PROVENANCE, provenance(folder, dtype) | {"rounding": rounding})
            write_card(temporary)
        say(_told(rounding))
    else:
        export_params(params, source.decoder, None, source=source.folder, dtype=dtype)
    processes.once(lambda: None)  # nobody goes on before the folder is there
    return params


def is_exported(folder: Path, out: Path, dtype: str | None = None) -> bool:
    """Returns whether `out` holds the model of the checkpoint `folder`, its weights in `dtype` (None: as the base's).

    An export that was interrupted does not count. Raises BadInput if `out` holds something else, CorruptData where the
    list of what was exported, or `o1p_jax.json`, is damaged.
    """
    if not out.exists() or is_empty(out):
        return False
    if not read_sums(out):
        if (out / PROVENANCE).is_file():
            raise BadInput(f"{out / SUMS}: is missing, by which the export is checked; remove {out} and export again")
        raise BadInput(f"out={out}: exists and was not exported by this program; name another folder")
    if not (out / CONFIG).is_file():
        return False
    check_sums(out, {PROVENANCE: sum_of(out / PROVENANCE)})
    found = read_json(out / PROVENANCE)
    return found == found | provenance(folder, dtype)


def _told(rounding: dict[str, Any]) -> str:
    """What the exported types leave of the training's changes, in a line for people."""
    cosine = rounding["cosine"]
    alike = "" if cosine is None else f"; the cosine of both changes is {cosine:.3f}"
    lost = rounding["trained"] and (cosine is None or cosine < _ALIKE)
    return (
        f"export: training changed {rounding['trained']:.2%} of the values, {rounding['exported']:.2%} differ as "
        f"exported{alike}" + ("; the rest is rounded away, which --export.dtype=float32 keeps" if lost else "")
    )


def newest_checkpoint(run: Path, step: int | None = None) -> Path:
    """Returns the folder of the run's checkpoint `step`, or of its newest whole checkpoint if `step` is None.

    Raises BadInput that lists the steps there are, where `step` is none of them.
    """
    there = {int(folder.name): folder for folder in checkpoint.steps(run / "checkpoints")}
    if step is not None and there:
        if step not in there:
            raise BadInput(f"--step={step}: {run} holds no such checkpoint; there are {', '.join(map(str, there))}")
        return there[step]
    newest = checkpoint.newest(run / "checkpoints")
    if newest is None:
        raise BadInput(f"{run}: holds no finished checkpoint; " + (hint_at_rounds(run) or "train first"))
    return newest
