"""What is passed on with a model, and what a report says of its training."""

import json
from pathlib import Path

import numpy as np
import pytest

from o1p_jax.config.text import flatten
from o1p_jax.config.tree import ProblemConfig, RunConfig
from o1p_jax.runtime.files import public_path, sha256_file, write_json
from o1p_jax.stages.card import PROVENANCE, provenance, training_facts, write_card
from o1p_jax.training.checkpoint import FACTS, MANIFEST
from o1p_jax.training.mismatch import mismatch


def carded(folder: Path, commit: str | None = None, fill: float | None = 0.9141, **parts) -> tuple[dict, str]:
    """The facts and the card of a model that was exported from a checkpoint of step 2."""
    cfg = RunConfig(**parts)
    data = {"solutions sampled": 32, "solutions trained on": 16}
    notes = {"model": cfg.model, "commit": commit, "data": data, "config": flatten(cfg)}
    checkpoint = folder / "checkpoints/00000002"
    write_json(checkpoint / FACTS, {"notes": notes, "made_by": {}, "fill": fill})
    write_json(checkpoint / MANIFEST, {FACTS: sha256_file(checkpoint / FACTS)})
    rounding = {"trained": 1.0, "exported": 1.0, "cosine": 1.0}
    write_json(folder / "model" / PROVENANCE, provenance(checkpoint) | {"rounding": rounding})
    write_card(folder / "model")
    return json.loads((folder / "model" / PROVENANCE).read_text()), (folder / "model/README.md").read_text()


@pytest.mark.parametrize("folder", ["/home/me/secret", "secret/of/mine", "./secret", "~/secret"])
def test_a_card_names_files_without_their_folders_wherever_it_is_written(tmp_path, folder):
    facts, card = carded(
        tmp_path, model=f"{folder}/base", problems=ProblemConfig(train=f"{folder}/math.jsonl", test=f"{folder}/x:test")
    )
    assert (facts["base"], facts["hub_name"], facts["problems"]) == ("base", None, "math.jsonl")
    assert "secret" not in card + json.dumps(facts) and "Training problems: `math.jsonl`" in card


def test_a_card_links_a_hubs_model_and_names_a_hubs_problems(tmp_path):
    facts, card = carded(
        tmp_path, commit="0" * 40, model="Qwen/Qwen3-0.6B", problems=ProblemConfig(train="openai/gsm8k@main:train")
    )
    assert facts["hub_name"] == "Qwen/Qwen3-0.6B" and "base_model: Qwen/Qwen3-0.6B" in card
    assert "Training problems: `openai/gsm8k@main:train`" in card


def test_a_card_tells_how_full_the_computed_slots_were_where_that_is_known(tmp_path):
    assert "91.4% held a token" in carded(tmp_path / "known")[1]
    assert "held a token" not in carded(tmp_path / "unknown", fill=None)[1]
    assert "computed slots that held a token" not in training_facts(tmp_path / "unknown" / "model")


@pytest.mark.parametrize("name", ["embedded:test", "openai/gsm8k@main:test", "Qwen/Qwen3-0.6B", "AI-MO/aimo:train"])
def test_names_that_are_no_paths_stay(name):
    assert public_path(name) == name


def test_a_folder_of_problems_keeps_its_split(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/math").mkdir(parents=True)
    assert public_path("data/math:train") == public_path(f"{tmp_path}/data/math:train") == "math:train"


def test_a_report_tells_how_a_model_was_trained(tmp_path):
    carded(tmp_path)
    lines = [{"step": step, "tokens": 600.0, "seconds": 45.0} for step in (1, 2, 3)]  # the third came later
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    facts = training_facts(tmp_path / "model")
    assert facts["training steps"] == "2" and facts["learning rate"] == "2e-06, epochs 1"
    assert (
        "name=o1_pruner" in facts["method"] and "lam=2.0" in facts["method"] and "reward" not in facts["method"].split()
    )
    assert facts["solutions trained on"] == "16" and facts["computed slots that held a token"] == "91.4%"
    assert facts["tokens trained on"].startswith("1,200,") and facts["time of the steps"] == "1.5 min"
    assert "sampler and trainer differ by" not in facts
    found = mismatch({0: np.array([-1.0, -2.0])}, {0: np.array([-1.5, -2.0])}).for_metrics()
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line | found) + "\n" for line in lines))
    assert training_facts(tmp_path / "model")["sampler and trainer differ by"].startswith("0.25 nats in the")


@pytest.mark.parametrize("log", [None, '{"step": 1, "tokens": 6, "seconds": 1}\n{"step": 2, "tok', "3\n\xff\n"])
def test_what_is_not_known_of_a_training_is_left_out(tmp_path, log):
    carded(tmp_path)
    if log is not None:
        (tmp_path / "metrics.jsonl").write_text(log)
    facts = training_facts(tmp_path / "model")
    assert facts["training steps"] == "2" and not {"tokens trained on", "time of the steps"} & set(facts)
    assert training_facts(tmp_path) == {}
