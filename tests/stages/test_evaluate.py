"""Models compared by servers: each by its own, never by another's, and as the offline engine compares them."""

import itertools
import shutil
from dataclasses import replace
from pathlib import Path

import fake_server
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_pools import END, PROMPTER, ids_of
from made_rollouts import rollouts, row
from vllm_server import free_port, serving

from o1p_jax.config.tree import ComputeConfig, EvaluationConfig, ProblemConfig, RunConfig, SamplingConfig, VllmConfig
from o1p_jax.data.pool import Pool
from o1p_jax.data.problems import load_problems
from o1p_jax.data.prompts import make_prompts
from o1p_jax.data.records import Request
from o1p_jax.evaluation.effort import with_passes
from o1p_jax.grading.passes import KINDS
from o1p_jax.grading.thoughts import thought_end
from o1p_jax.models.hf.hub import resolve_model
from o1p_jax.runtime.errors import BadInput
from o1p_jax.sampling.base import Answer, SamplingParams, sample
from o1p_jax.sampling.engine import JaxSampler
from o1p_jax.sampling.scores import score
from o1p_jax.stages.evaluate import evaluate, with_thoughts

PROBLEMS, SAMPLES, LONGEST = 12, 2, 160


@pytest.fixture
def export(tmp_path) -> Path:
    """The embedded model after a training that changed little: every weight by a thousandth of the weights' spread."""
    from safetensors.numpy import load_file, save_file

    folder = shutil.copytree(resolve_model("embedded"), tmp_path / "export")
    weights, rng = load_file(folder / "model.safetensors"), np.random.default_rng(0)
    changed = {
        name: (w + 1e-3 * w.astype(np.float32).std() * rng.standard_normal(w.shape)).astype(w.dtype)
        for name, w in weights.items()
    }
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def answers(out: Path) -> dict[str, list[int]]:
    """The lengths of the solutions of each model that has given all of them."""
    pools = {path.name.split("-")[0]: Pool(path) for path in (out / "pools").iterdir()}
    return {
        name: list(map(len, pool.read(["completion_ids"])["completion_ids"].to_pylist()))
        for name, pool in pools.items()
        if pool.complete
    }


def config(url: str, **fields) -> RunConfig:
    return RunConfig(
        problems=ProblemConfig(limit_test=PROBLEMS),
        sampling=SamplingConfig(sampler="server", servers=(url,), slots=8, vllm=VllmConfig(dtype="float32")),
        evaluation=EvaluationConfig(bootstrap=50, **fields),
        compute=ComputeConfig(dtype="float32"),
    )


def greedy(folder: Path, longest: int):
    """How a server of the model in `folder` answers the test problems, as `fake_server.Fake` takes it."""
    problems = load_problems("embedded:test", ProblemConfig(), PROBLEMS)
    prompts = list(make_prompts(folder, problems, ProblemConfig()).prompt_ids.values())
    how = SamplingParams(temperature=0.0, max_tokens=longest, stop_ids=())
    ours = JaxSampler.load(folder, how, mesh="1x1", dtype="float32", slots=16, max_length=256)
    told = sample(ours, [Request(prompt, 0) for prompt in prompts])
    answers = [Answer(prompt, done.token_ids, None) for prompt, done in zip(prompts, told, strict=True)]
    scores = score(folder, "float32", answers)
    known = {a.prompt_ids: (list(a.token_ids), s.logprob_T.tolist()) for a, s in zip(answers, scores, strict=True)}
    return lambda prompt: known[tuple(prompt)]


@pytest.mark.slow
def test_the_export_is_never_sampled_from_the_base(export, tmp_path):
    base, models, out = resolve_model("embedded"), ["embedded", str(export)], tmp_path / "out"
    with fake_server.serving(answer=greedy(base, 16)) as a, fake_server.serving(answer=greedy(export, 16)) as b:
        with pytest.raises(BadInput, match=r"evaluation\.servers: left out"):
            evaluate(config(a.url, max_tokens=16), models, ["embedded:test"], out)
        with pytest.raises(BadInput, match=rf"{a.url}/ serves .* rather than {export}"):
            evaluate(config(a.url, max_tokens=16, servers=(a.url,)), models, ["embedded:test"], out)
        with pytest.raises(BadInput, match=rf"{b.url}/ serves {export} rather than"):
            evaluate(config(b.url, max_tokens=16, servers=(b.url,)), models, ["embedded:test"], tmp_path / "none")
        evaluate(config(a.url, max_tokens=16, servers=(b.url,)), models, ["embedded:test"], out)
        assert len(a.asked) == len(b.asked) == PROBLEMS


@pytest.mark.vllm
@pytest.mark.slow
def test_servers_give_the_table_of_the_offline_engine_and_the_base_is_never_taken_for_the_export(export, tmp_path):
    pytest.importorskip("vllm")
    port, base = free_port(), resolve_model("embedded")
    url = f"http://127.0.0.1:{port}/v1"
    cfg = config(url, servers=(url,), samples_per_problem=SAMPLES, temperature=1.0, max_tokens=LONGEST)
    models, out = ["embedded", str(export)], tmp_path / "served"
    with serving(base, tmp_path / "base.log", port, 256), pytest.raises(BadInput, match=r"rather than|does not serve"):
        evaluate(cfg, models, ["embedded:test"], out)
    base_alone = answers(out)  # the base is not asked again
    assert list(base_alone) == ["embedded"] and len(base_alone["embedded"]) == PROBLEMS * SAMPLES
    with serving(export, tmp_path / "export.log", port, 256):
        evaluate(cfg, models, ["embedded:test"], out)

    offline = replace(cfg, sampling=replace(cfg.sampling, sampler="vllm"))
    evaluate(offline, models, ["embedded:test"], tmp_path / "offline")
    served, engine = answers(out), answers(tmp_path / "offline")
    assert served.keys() == engine.keys() == {"embedded", "export"}
    for name, lengths in served.items():
        assert np.mean(np.array(lengths) == engine[name]) >= 0.8  # the same seeds; rounding parts a few
        assert (out / "table.md").is_file()


PIECES = st.sampled_from([*"ab12 \n", "<think>", "</think>", " wait", "\\boxed{4}", "é", "思"])


@given(st.lists(PIECES, max_size=30), st.booleans())
def test_tokens_of_the_thought_are_the_first_whose_text_reaches_its_end(pieces, inside):
    ids = [*ids_of("".join(pieces)), END]
    text = PROMPTER.decode(ids)
    opened = "<think>" if inside else ""
    end = thought_end(opened + text)
    rows = pa.table({"completion": [text], "completion_ids": [ids], "inside_thought": [inside]})
    [tokens] = with_thoughts(rows, PROMPTER)["thought_tokens"].to_pylist()
    if end is None:
        assert tokens is None
    else:
        lengths = [len(PROMPTER.decode(ids[:n])) for n in range(len(ids))]
        assert tokens == next(n for n, length in enumerate(lengths) if length >= end - len(opened))


def test_the_tokens_of_a_closed_thought_are_those_up_to_its_mark():
    ids = [*ids_of("<think>\nTry 8.\n</think>"), *ids_of("\nIt is \\boxed{8}."), END]
    rows = pa.table({"completion": [PROMPTER.decode(ids)], "completion_ids": [ids], "inside_thought": [False]})
    assert with_thoughts(rows, PROMPTER)["thought_tokens"].to_pylist() == [len(ids_of("<think>\nTry 8.\n</think>"))]


def test_the_tokens_of_passes_are_those_that_the_tokenizer_makes_of_them():
    pieces = {
        "first": "<think>\nMy first guess is 8.\n",
        "to_right": "Try 8: a 9. No.\nTry 7: a 5. Yes.\n",
        "unchanged": "Wait, check 7 again: a 5. Yes.\n",
        "repeated": "Wait, check 7 again: a 5. Yes.\n</think>",
        "after": "\nIt is \\boxed{7}.",
    }
    ids = [*itertools.chain.from_iterable(map(ids_of, pieces.values())), END]
    solution = row("a", 1, "correct", text=PROMPTER.decode(ids), answer="7") | {"completion_ids": ids}
    [tokens] = with_passes(rollouts([solution]), PROMPTER.text_lengths)["tokens_by_kind"].to_pylist()
    found = dict(zip(KINDS, tokens, strict=True))
    assert found == {"to_wrong": 0} | {k: len(ids_of(text)) + (k == "after") for k, text in pieces.items()}
