"""The model card of an exported folder, and the facts it is made from."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from o1p_jax.config.tree import EMBEDDED
from o1p_jax.methods import method_of, params_of
from o1p_jax.methods.own_reward import card_text
from o1p_jax.runtime.files import read_json, sha256_file, write_atomic
from o1p_jax.runtime.user_code import public_name
from o1p_jax.training import checkpoint

PROVENANCE = "o1p_jax.json"


_TOLD = re.compile(
    r"seed|sampling\.(samples_per_problem|temperature|top_p|top_k|max_tokens)"
    r"|(method|batch|optim)\.\w+|grading\.grader|compute\.(dtype|trainable_layers)|evaluation\.aes_as_printed"
)


def write_card(folder: Path, comparison: str | None = None) -> None:
    """Writes the model card, README.md, of an exported folder; `comparison` is the before/after table as Markdown."""
    environment = Environment(
        loader=PackageLoader("o1p_jax.stages"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    card = environment.get_template("card.md.j2").render(read_json(folder / PROVENANCE), comparison=comparison)
    write_atomic(folder / "README.md", card)


def _provenance(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the card is made from; `facts` are those of the checkpoint, dotted config fields among them."""
    prefix = "method."
    kind, values = params_of({k.removeprefix(prefix): v for k, v in facts.items() if k.startswith(prefix)})
    params = kind(**values)
    resolved = dict(facts) | {prefix + name: value for name, value in params.resolved().items()}
    for name in ("method.reward", "grading.grader"):
        resolved[name] = resolved[name] and public_name(resolved[name])
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
        "method": card_text(method_of(params), params, facts["reward_source"]),
        "settings": {name: value for name, value in resolved.items() if _TOLD.fullmatch(name)},
    }


def _public(name: str) -> str:
    """A path's last part: a model that is passed on tells nothing of the machine it was made on."""
    return Path(name).name if name.startswith(("/", "~", ".")) or Path(name).exists() else name
