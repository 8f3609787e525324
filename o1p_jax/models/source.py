"""The model that a job starts from is found once, and handed down to every stage that needs it."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from o1p_jax.config.text import fingerprint
from o1p_jax.devices import processes
from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.hf.folder import INDEX
from o1p_jax.models.hf.hub import CONFIG, COPIED, load_config, resolve_model
from o1p_jax.runtime.digests import kept_sha256, state
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.sums import check_sums, read_sums, sum_of


@dataclass(frozen=True, kw_only=True)
class SourceModel:
    """A model's files, and what is known of them."""

    name: str
    """The model as the configuration names it: a folder, a hub name, or `embedded`."""
    folder: Path
    decoder: DecoderConfig
    commit: str | None
    """The hub's commit that the files are of; None for a folder's files."""
    digest: str
    """The SHA-256 over the names and contents of config.json and the weight files."""
    state: str
    """A digest of the files' sizes, times and inodes, by which a later change is noticed without reading the files."""

    def check_unchanged(self) -> None:
        """Raises BadInput where the model's files have changed since the job began."""
        if _state(self.folder) != self.state:
            raise BadInput(
                f"{self.folder}: the model's files have changed since the job began; put them back, or start a new run"
            )

    def to_json(self) -> dict[str, Any]:
        """Returns the model as JSON values, which another process reads with `from_json`."""
        return {**asdict(self), "folder": str(self.folder), "decoder": None}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "SourceModel":
        """Returns the model that `to_json` made `values` of, with the decoder's configuration read from the folder."""
        folder = Path(values["folder"])
        return cls(**{**values, "folder": folder, "decoder": load_config(folder)})


def find_model(name: str, revision: str | None = None) -> SourceModel:
    """Finds (on the hub: fetches) the model `name`, and reads its configuration and the digest of its weights.

    The processes of a job must all call the function: each reads a share of the weight files. Files whose digest is
    known from an earlier start are not read. Raises BadInput where the model is not to be had, or this project's
    decoder can't compute it; CorruptData where files that this program exported are no longer as they were.
    """
    folder = resolve_model(name, revision)
    check_sums(folder, {CONFIG: sum_of(folder / CONFIG)})  # the cheap checks first
    decoder = load_config(folder)
    files = [file.name for file in _files(folder)]
    exported = [file for file in read_sums(folder) if file in (*COPIED, INDEX) or file.endswith(".safetensors")]
    found = processes.share(
        sorted({*files, *exported}),
        lambda file: kept_sha256(folder / file) if (folder / file).is_file() else None,
    )
    check_sums(folder, found)
    digests = {file: found[file] for file in files}
    return SourceModel(
        name=name,
        folder=folder,
        decoder=decoder,
        commit=_commit(folder),
        digest=fingerprint(digests),
        state=_state(folder),
    )


def exported_digest(folder: Path) -> str:
    """Returns the digest of the model that this program has just exported to `folder`, by the list of what it wrote."""
    sums = read_sums(folder)
    return fingerprint({file.name: sums[file.name] for file in _files(folder)})


def _files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.safetensors"), *folder.glob(CONFIG)])


def _state(folder: Path) -> str:
    return fingerprint([state(file)[1:] for file in _files(folder)])  # hosts may see the folder under other paths


def _commit(folder: Path) -> str | None:
    """Returns the commit of the hub's files in `folder`; the hub's cache keeps a commit's files in snapshots/COMMIT."""
    found = folder.parent.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", folder.name)
    return folder.name if found else None
