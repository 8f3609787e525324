"""A run's config.json holds the configuration that the run was last started with, and the commit of a hub's model."""

from pathlib import Path

from o1p_jax.config.text import from_dict, to_dict
from o1p_jax.config.tree import RunConfig
from o1p_jax.runtime.errors import BadInput, CorruptData
from o1p_jax.runtime.files import read_object, write_json

CONFIG = "config.json"
_FORMAT = 3


def save_config(path: Path, cfg: RunConfig, commit: str | None) -> None:
    """Writes config.json to `path`; `commit` is the model's commit on the hub, None where the model is a folder."""
    write_json(path, {"format": _FORMAT, "commit": commit, **to_dict(cfg)})


def load_saved(path: Path) -> tuple[RunConfig, str | None]:
    """Returns the configuration and the commit that the config.json at `path` holds.

    Raises BadInput for the file of an older version, CorruptData for a file that is not as it was written.
    """
    values = read_object(path)
    if values.pop("format", None) != _FORMAT:
        raise BadInput(f"run={path.parent}: not a run, or one of an older version of this program; name another folder")
    commit = values.pop("commit", None)
    try:
        return from_dict(RunConfig, values), commit
    except BadInput as e:
        raise CorruptData(f"{path}: {e}") from None
    except (AttributeError, LookupError, TypeError):
        raise CorruptData(f"{path}: holds a value of another kind than was written; restore the file") from None
