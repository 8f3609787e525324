"""The module finds a model's files: in a folder, on the Hugging Face hub, or in the package (the embedded model)."""

from dataclasses import replace
from pathlib import Path

from o1p_jax.config.tree import EMBEDDED
from o1p_jax.models.config import DecoderConfig
from o1p_jax.models.families import read_config
from o1p_jax.models.hf.folder import INDEX, FolderTensors
from o1p_jax.runtime.errors import BadInput, CorruptData
from o1p_jax.runtime.files import read_json

CONFIG = "config.json"
COPIED = (
    CONFIG,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
"""The files that a model's folder holds besides its weights; they are exported as they came."""


def resolve_model(path: str, revision: str | None = None, *, weights: bool = True) -> Path:
    """Returns the folder of a model: `embedded`, a folder, or a name on the Hugging Face hub (cached or fetched).

    Without `weights` all else of the model is fetched: config.json, the tokenizer and their like.
    """
    if path == EMBEDDED:
        return Path(__file__).parents[2] / "embedded" / "model"
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if path.count("/") > 1 or path.startswith((".", "~", "/")) or folder.exists():
        raise BadInput(f"model={path}: no such folder")
    from huggingface_hub import snapshot_download

    wanted = ["*.safetensors", INDEX, *COPIED] if weights else [*COPIED]
    try:
        return Path(snapshot_download(path, revision=revision, etag_timeout=5, allow_patterns=wanted))
    except Exception as e:  # the hub's client raises errors of several libraries
        raise BadInput(
            f"model={path}: neither a folder nor to be had from the Hugging Face hub "
            f"({type(e).__name__}); check the name, the network and HF_TOKEN"
        ) from e


def check_config_tells_all(folder: Path, cfg: DecoderConfig) -> None:
    """Raises `BadInput` where programs that go by config.json alone, such as vLLM, compute another model than `cfg`."""
    path = folder / CONFIG
    if read_config(read_json(path)).tied != cfg.tied:
        raise BadInput(
            f"{path}: tie_word_embeddings: the weights hold a head of their own, which vLLM would leave out; set the "
            "entry to false, or take sampling.sampler=jax"
        )


def load_config(folder: Path) -> DecoderConfig:
    """Reads the configuration of the model in `folder`; raises `BadInput` where the decoder can't compute the model.

    A model that is said to be tied, but whose weights are there and hold a head of their own, is not tied: transformers
    keeps both as well.
    """
    hf = read_json(folder / CONFIG)
    if not isinstance(hf, dict):
        raise CorruptData(f"{folder / CONFIG}: not a JSON object; restore the file")
    try:
        cfg = read_config(hf)
    except BadInput as e:
        raise BadInput(f"{folder}: {e}") from None
    if cfg.tied and any(folder.glob("*.safetensors")) and FolderTensors(folder).has_own_head(cfg):
        return replace(cfg, tied=False)
    return cfg
