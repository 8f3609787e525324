"""The stages' look at whether test problems stand among the training problems: a note, and never an error."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from o1p_jax.config.saved import CONFIG, load_saved
from o1p_jax.config.tree import ProblemConfig
from o1p_jax.data.overlap import find_overlap
from o1p_jax.data.pool import Pool
from o1p_jax.data.records import Problem
from o1p_jax.evaluation.table import Note
from o1p_jax.runtime.progress import say
from o1p_jax.stages.card import PROVENANCE
from o1p_jax.stages.pool import pool_path

_SHOWN = 60
"""The number of characters of a problem that a line shows."""


def notes_on_problems(
    cfg: ProblemConfig, train: Sequence[str], tests: Mapping[str, Sequence[Problem]], of: str = ""
) -> dict[str, list[Note]]:
    """Returns by test set what is to be said of the set's problems that stand among the texts `train`.

    Where some do, it is said at once to the person who watches as well, with an example. `of` names the model that was
    trained on them.
    """
    if not cfg.check_overlap:
        return {name: [Note("overlap: not looked at (problems.check_overlap=False)")] for name in tests}
    notes = {}
    for name, problems in tests.items():
        note = _note(train, [p.problem for p in problems], of)
        if note.warns:
            say(f"{name}: {note.text}")
        notes[name] = [note]
    return notes


def notes_on_models(
    cfg: ProblemConfig, models: Mapping[str, Path], tests: Mapping[str, Sequence[Problem]]
) -> dict[str, list[Note]]:
    """Returns by test set what is to be said of overlap with what `models` (name -> folder) were trained on."""
    if not cfg.check_overlap:
        return notes_on_problems(cfg, [], tests)
    notes: dict[str, list[Note]] = {name: [] for name in tests}
    texts = {model: _training_texts(folder) for model, folder in models.items()}
    for model, train in texts.items():
        for name, found in {} if train is None else notes_on_problems(cfg, train, tests, model).items():
            notes[name] += found
    if unknown := [model for model, train in texts.items() if train is None]:
        note = Note(f"overlap: not looked at for {', '.join(unknown)}, whose training problems are not at hand")
        notes = {name: [*of_set, note] for name, of_set in notes.items()}
    return notes


def _training_texts(model: Path) -> list[str] | None:
    """The problems that the model in a folder was trained on, if it lies in its run's folder and has its pool."""
    run = model.parent
    if not ((model / PROVENANCE).is_file() and (run / CONFIG).is_file()):
        return None
    path = pool_path(replace(load_saved(run / CONFIG)[0], run=str(run)))  # the folder may have been moved
    return Pool(path).texts() if Pool.lies_in(path) else None


def _note(train: Sequence[str], test: Sequence[str], of: str) -> Note:
    texts = [text for text in train if text.strip()]
    among = f"the {len(texts):,} training problems{of and f' of {of}'}"
    if missing := len(train) - len(texts):
        among += f" (and {missing:,} without text, which were not looked at)"
    found = find_overlap(texts, test)
    if not found:
        return Note(f"overlap: none of the {len(test):,} test problems stands among {among}, by text or nearly so")
    exact = sum(shared.exact for shared in found)
    first = next((shared for shared in found if shared.exact), found[0])
    example = f"such as {_start(test[first.test])}"
    if not first.exact:
        example += f", nearly {_start(texts[first.train])}"
    return Note(
        f"overlap: {len(found):,} of the {len(test):,} test problems stand among {among}: {exact:,} by text, "
        f"{len(found) - exact:,} nearly so, {example}",
        warns=True,
    )


def _start(text: str) -> str:
    """The beginning of a problem in one line; what does not print shows by its code."""
    line = " ".join(text.split())
    return repr(line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "...")
