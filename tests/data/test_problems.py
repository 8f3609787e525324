"""Problem sets in every form, and prompts that are the same for sampling and training."""

import json
import sys
import types

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from host import model_folder, problem_file

from o1p_jax.config.tree import ProblemConfig
from o1p_jax.data.problems import load_problems
from o1p_jax.data.prompts import Prompter
from o1p_jax.data.records import Problem, problem_id
from o1p_jax.runtime.errors import BadInput

CFG = ProblemConfig()


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def load(path, rows, cfg=CFG, limit=None):
    return load_problems(jsonl(path, rows), cfg, limit)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("model"))


def problem(text="1+1?"):
    return Problem(problem_id=problem_id(text, "2"), source="s", split="t", level="-", problem=text, answer="2")


def test_jsonl_parquet_and_datasets_give_the_same_problems(tmp_path, monkeypatch):
    rows = [{"problem": f"{i}?", "answer": i, "level": f"Level {i}"} for i in range(5)]
    from_jsonl = load(tmp_path / "set.jsonl", rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set.parquet")
    from_parquet = load_problems(str(tmp_path / "set.parquet"), CFG)
    asked = []
    library = types.ModuleType("datasets")
    library.load_dataset = lambda *args, **kwargs: asked.append((args, kwargs)) or rows
    monkeypatch.setitem(sys.modules, "datasets", library)
    from_hub = load_problems("some/set@main:test", CFG)
    assert asked == [(("some/set", "main"), {"split": "test"})]
    ids = [[p.problem_id for p in found] for found in (from_jsonl, from_parquet, from_hub)]
    assert ids[0] == ids[1] == ids[2]
    assert [(p.answer, p.level, p.split) for p in from_jsonl[:2]] == [("0", "Level 0", "set"), ("1", "Level 1", "set")]
    assert from_hub[0].source == "some/set@main:test" and from_hub[0].split == "test"


def test_gsm8k_columns_and_answers(tmp_path):
    cfg = ProblemConfig(prompt_column="question")
    [found] = load(tmp_path / "train.jsonl", [{"question": "How many?", "answer": "9 * 2 = 18\n#### 1,018"}], cfg)
    assert (found.problem, found.answer, found.level) == ("How many?", "1,018", "-")


def test_ids_depend_on_content_alone_and_repeats_count_once(tmp_path, capsys):
    rows = [{"problem": "a", "answer": "1"}, {"problem": "b", "answer": "2"}, {"problem": "a", "answer": "1"}]
    found = load(tmp_path / "x.jsonl", rows)
    assert [p.problem for p in found] == ["a", "b"]
    assert "1 of 3 rows repeat a problem" in capsys.readouterr().err
    assert {p.problem_id for p in load(tmp_path / "y.jsonl", rows[::-1])} == {p.problem_id for p in found}


def test_limit(tmp_path):
    assert len(load_problems(str(problem_file(tmp_path / "p.jsonl", 9)), CFG, 4)) == 4


def test_embedded():
    assert len(load_problems("embedded:test", CFG, 3)) == 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no problems"),
        (
            [{"problem": "a", "answer": "1"}, {"problem": "b"}],
            "row 2: no column answer, only problem; set problems.answer",
        ),
        (
            [{"question": "a", "answer": "1"}],
            "row 1: no column problem, only question, answer; set problems.prompt_column",
        ),
        ([{"problem": "a", "answer": None}], "row 1: column answer holds no text"),
        ([{"problem": "a", "answer": "  "}], "row 1: column answer holds no text"),
        ([{"problem": "a", "answer": "so\n####  "}], "row 1: nothing stands behind '####'"),
        ([{"problem": ["a"], "answer": "1"}], "row 1: column problem holds no text"),
        ([["a", "1"]], "row 1: not a JSON object"),
    ],
)
def test_bad_rows_are_named(tmp_path, rows, message):
    with pytest.raises(BadInput, match=message) as e:
        load(tmp_path / "bad.jsonl", rows)
    assert "bad.jsonl" in str(e.value) and "\n" not in str(e.value)


def test_bad_files_are_named(tmp_path):
    (tmp_path / "broken.jsonl").write_text('{"problem": "a", "answer": "1"}\n{"problem"\n')
    (tmp_path / "latin.jsonl").write_bytes(b'{"problem": "\xe9"}\n')
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    for name, message in [
        ("broken.jsonl", "row 2: not valid JSON"),
        ("latin.jsonl", "not UTF-8"),
        ("bad.parquet", "not readable as Parquet"),
        ("none.jsonl", "no such file"),
        ("what", "not a problem set"),
    ]:
        with pytest.raises(BadInput, match=message):
            load_problems(str(tmp_path / name), CFG)


def test_datasets_absent_or_refusing(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(BadInput, match="pip install datasets"):
        load_problems("some/set:test", CFG)

    library = types.ModuleType("datasets")

    def refuse(*_, **__):
        raise ValueError("Unknown split 'tset'.\nmore")

    library.load_dataset = refuse
    monkeypatch.setitem(sys.modules, "datasets", library)
    with pytest.raises(BadInput, match=r"some/set:tset: can't be loaded \(Unknown split 'tset'.\)"):
        load_problems("some/set:tset", CFG)


def test_prompt_goes_through_the_chat_template_with_one_bos(model):
    cfg = ProblemConfig(system_prompt="Think {hard}.", user_template="Solve the problem: {problem}")
    prompter = Prompter(model, cfg)
    ids = prompter.prompt_ids(problem("is {x} = 1?"))
    assert prompter.decode(ids) == "<system>Think {hard}.<user>Solve the problem: is {x} = 1?<assistant>"
    assert ids[0] == 1 and ids.count(1) == 1


def test_the_identity_covers_all_that_makes_the_prompts(model, tmp_path):
    file = str(problem_file(tmp_path / "p.jsonl", 3))
    configs = [CFG, ProblemConfig(system_prompt="x"), ProblemConfig(user_template="{problem}!")]
    sets = [make_prompts(model, load_problems(file, cfg, None), cfg) for cfg in configs]
    other = model_folder(tmp_path / "other", chat_template="{{ messages[0]['content'] }}")
    sets.append(make_prompts(other, load_problems(file, CFG, None), CFG))
    assert len({s.identity["prompts_sha256"] for s in sets}) == 4
    assert len({s.identity["problems_sha256"] for s in sets}) == 1
    assert (
        make_prompts(model, load_problems(file, CFG, 2), CFG).identity["problems_sha256"]
        != sets[0].identity["problems_sha256"]
    )


def test_eos_ids_are_the_generation_configs_and_the_tokenizers(tmp_path):
    model_folder(tmp_path)
    assert Prompter(tmp_path, CFG).eos_ids == (2,)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 2, 9]}')
    assert Prompter(tmp_path, CFG).eos_ids == (7, 2, 9)


def test_decode_leaves_out_special_tokens(model):
    assert Prompter(model, CFG).decode([68, 2, 0]) == Prompter(model, CFG).decode([68])


def test_models_that_do_not_fit(tmp_path, model):
    with pytest.raises(BadInput, match="has no chat template"):
        Prompter(model_folder(tmp_path / "a", chat_template=None), CFG)
    with pytest.raises(BadInput, match="does not match the model: 259 tokens for a vocabulary of 100"):
        Prompter(model_folder(tmp_path / "b", vocab_size=100), CFG)
    with pytest.raises(BadInput, match="no usable tokenizer") as e:
        Prompter(tmp_path, CFG)
    assert "\n" not in str(e.value)
    refusing = model_folder(tmp_path / "c", chat_template="{{ raise_exception('no system turn') }}")
    with pytest.raises(BadInput, match="refuses the messages"):
        Prompter(refusing, ProblemConfig(system_prompt="x")).prompt_ids(problem())


def test_long_prompts_are_named(model):
    with pytest.raises(BadInput, match=r"prompt tokens; raise problems\.max_prompt_tokens=12"):
        Prompter(model, ProblemConfig(max_prompt_tokens=12)).prompt_ids(problem("what is one plus one?"))
