"""The model card of an exported folder, and the facts that the card is made from."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from o1p_jax.config.text import fingerprint
from o1p_jax.config.tree import EMBEDDED, FIRST, LAST
from o1p_jax.methods import method_of, params_of
from o1p_jax.methods.own_reward import card_text
from o1p_jax.runtime.files import public_path, read_json, write_atomic
from o1p_jax.runtime.sums import update_sums
from o1p_jax.runtime.user_code import public_name
from o1p_jax.training import checkpoint
from o1p_jax.training.mismatch import Mismatch

PROVENANCE, CARD = "o1p_jax.json", "README.md"

_OF_TRAINING = r"seed|(method|batch|optim)\.\w+|grading\.grader|compute\.(dtype|trainable_layers)"
_TOLD = re.compile(_OF_TRAINING + r"|sampling\.(samples_per_problem|temperature|top_p|top_k|max_tokens)")
_TOLD_OF_IMPORTED = re.compile(_OF_TRAINING)


def write_card(folder: Path, comparison: str | None = None, *, as_printed: bool = False) -> None:
    """Writes the model card, README.md, of an exported folder.

    `comparison` is the before/after table as Markdown; `as_printed` says how its AES was reckoned (see
    `evaluation.scores.aes`).
    """
    made = {"rounds": 1, "by_reference": False} | read_json(folder / PROVENANCE)
    values = made | {"comparison": comparison, "as_printed": as_printed}
    write_atomic(folder / CARD, rendered("card.md.j2", values))
    update_sums(folder, CARD)


def rendered(template: str, values: dict[str, Any]) -> str:
    """Returns a file of stages/templates with its values filled in; a value that is missing is an error."""
    environment = Environment(
        loader=PackageLoader("o1p_jax.stages"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(values)


def provenance(folder: Path, dtype: str | None = None) -> dict[str, Any]:
    """Returns the facts (JSON values) that the model card of the checkpoint in `folder` is made from.

    `dtype` is the type that its weights are exported in; None: the base model's.
    """
    facts = checkpoint.facts_of(folder)
    notes, made_by = facts["notes"], facts["made_by"]
    config = notes["config"]
    prefix = "method."
    kind, values = params_of({k.removeprefix(prefix): v for k, v in config.items() if k.startswith(prefix)})
    params = kind(**values)
    settings = {**config, **{prefix + name: value for name, value in params.resolved().items()}}
    for name in ("method.reward", "grading.grader"):
        settings[name] = settings[name] and public_name(settings[name])
    imported = notes.get("imported")
    told = _TOLD_OF_IMPORTED if imported else _TOLD
    model, on_hub = notes["model"], notes["commit"] is not None
    return {
        "base": model if on_hub else Path(model).name,
        "hub_name": model if on_hub else None,
        "embedded": model == EMBEDDED,
        "revision": notes["commit"],
        "problems": public_path(config["problems.train"]),
        "imported": imported and {"format": imported["format"], "files": imported["files"]},
        "step": int(folder.name),
        "fill": facts.get("fill"),  # checkpoints of earlier versions have none
        "dtype": dtype,
        "checkpoint": fingerprint(made_by),
        "by_reference": config.get("reference", LAST) not in (FIRST, LAST),
        "method": card_text(method_of(params), params, made_by.get("method.reward_sha256")),
        "settings": {name: value for name, value in settings.items() if told.fullmatch(name)},
        "data": notes["data"],
    }


def training_facts(folder: Path) -> dict[str, str]:
    """Returns what is known of the training of the model in `folder`, for people; empty where this program made none.

    The tokens and the time are those of metrics.jsonl, where the model lies in its run's folder and no step is missing.
    """
    if not (folder / PROVENANCE).is_file():
        return {}
    made = read_json(folder / PROVENANCE)
    settings, steps = made["settings"], made["step"]
    method = [f"{name.removeprefix('method.')}={settings[name]}" for name in settings if name.startswith("method.")]
    epochs = "" if settings.get("optim.steps") else f", epochs {settings['optim.epochs']}"
    facts = {
        "training steps": f"{steps:,}",
        "method": ", ".join(part for part in method if not part.endswith("=None")),
        "learning rate": f"{settings['optim.learning_rate']:g}{epochs}",
        **{name: str(value) for name, value in made["data"].items()},
    }
    if made.get("fill"):
        facts["computed slots that held a token"] = f"{made['fill']:.1%}"
    log = [line for line in _lines(folder.parent / "metrics.jsonl") if line.get("step", 0) <= steps]
    if [line.get("step") for line in log] == list(range(1, steps + 1)):
        tokens, seconds = (sum(line[name] or 0 for line in log) for name in ("tokens", "seconds"))
        facts["tokens trained on"] = f"{tokens:,.0f}, prompts and repeats included"
        facts["time of the steps"] = f"{seconds / 60:.1f} min"
        if told := Mismatch.from_metrics(log[-1]):
            facts["sampler and trainer differ by"] = told.text()
    return facts


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the lines of a run's metrics that can be read."""
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        with suppress(ValueError):
            if isinstance(values := json.loads(line), dict):
                yield values
