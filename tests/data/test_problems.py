"""Problem sets in every form."""

import json
import sys
import types
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from o1p_jax.config.tree import ProblemConfig
from o1p_jax.data.problems import load_problems, training_problems
from o1p_jax.runtime.errors import BadInput

CFG = ProblemConfig()


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def chat(*turns, answer="1"):
    return {"problem": [{"role": role, "content": content} for role, content in turns], "answer": answer}


def load(path, rows, cfg=CFG, limit=None):
    return load_problems(jsonl(path, rows), cfg, limit)


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
    [found] = load(tmp_path / "train.jsonl", [{"question": "How many?", "answer": "9 * 2 = 18\n#### 1,018"}])
    assert (found.problem, found.answer, found.level) == ("How many?", "1,018", "-")


def test_a_question_counts_where_there_is_no_problem_and_a_named_column_alone(tmp_path):
    row = {"question": "q", "problem": "p", "answer": "1"}
    assert [p.problem for p in load(tmp_path / "both.jsonl", [row])] == ["p"]
    for name in ("question", "problem"):
        found = load(tmp_path / f"{name}.jsonl", [row], ProblemConfig(prompt_column=name))
        assert [p.problem for p in found] == [row[name]]
    with pytest.raises(BadInput, match=r"no column problem, only question, answer; set problems\.prompt_column"):
        load(tmp_path / "one.jsonl", [{"question": "q", "answer": "1"}], ProblemConfig(prompt_column="problem"))


def test_ids_depend_on_content_alone_and_repeats_count_once(tmp_path, capsys):
    rows = [{"problem": "a", "answer": "1"}, {"problem": "b", "answer": "2"}, {"problem": "a", "answer": "1"}]
    found = load(tmp_path / "x.jsonl", rows)
    assert [p.problem for p in found] == ["a", "b"]
    assert "1 of 3 rows repeat a problem" in capsys.readouterr().err
    assert {p.problem_id for p in load(tmp_path / "y.jsonl", rows[::-1])} == {p.problem_id for p in found}


def test_a_limit_takes_some_of_every_level_whatever_the_order(tmp_path, capsys):
    """The first 12 of a set sorted by level would all be of one level."""
    rows = [{"problem": f"{i}?", "answer": i, "level": i // 20} for i in range(60)]
    found = load(tmp_path / "x.jsonl", rows, limit=12)
    assert len(found) == 12 and {p.level for p in found} == {"0", "1", "2"}
    assert "12 of 60 problems are used, chosen by their hash" in capsys.readouterr().err
    assert [int(p.answer) for p in found] == sorted(int(p.answer) for p in found)
    assert {p.problem_id for p in load(tmp_path / "y.jsonl", rows[::-1], limit=12)} == {p.problem_id for p in found}
    assert {p.problem_id for p in load(tmp_path / "x.jsonl", rows, limit=11)} < {p.problem_id for p in found}


def test_parts_share_the_training_problems_out_by_their_hash(tmp_path):
    rows = [{"problem": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(60)]
    cfg = replace(CFG, train=str(jsonl(tmp_path / "a.jsonl", rows)), limit_train=50, parts=3)
    parts = [[p.problem_id for p in training_problems(replace(cfg, part=part))] for part in (1, 2, 3)]
    whole = [p.problem_id for p in training_problems(replace(cfg, parts=1))]
    assert (
        sorted(name for part in parts for name in part) == sorted(whole)
        and len(whole) == 50
        and min(map(len, parts)) > 8
    )
    turned = replace(cfg, train=str(jsonl(tmp_path / "b.jsonl", rows[::-1])), part=2)
    assert [p.problem_id for p in training_problems(turned)] == parts[1][::-1]
    with pytest.raises(BadInput, match=r"^problems\.part=4: must be at most problems\.parts=3"):
        replace(cfg, part=4)
    with pytest.raises(BadInput, match=r"^problems\.part=\d: holds none of 1 training problems in 2 parts; take fewer"):
        for part in (1, 2):
            training_problems(replace(cfg, limit_train=1, parts=2, part=part))


def test_embedded():
    assert [p.level for p in load_problems("embedded:test", CFG, 3)] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (["4"], "4"),
        ([4], "4"),
        ('["207"]', "207"),
        (["so\n#### 9"], "9"),
        ("[1, 2]", "[1, 2]"),
        ('["a", b"]', '["a", b"]'),
    ],
)
def test_the_gold_answer_may_stand_alone_in_a_list(tmp_path, gold, answer):
    [found] = load(tmp_path / "x.jsonl", [{"problem": "a", "answer": gold}])
    assert found.answer == answer


def test_a_level_that_is_missing_is_no_level(tmp_path):
    rows = [{"problem": f"{level}?", "answer": 1, "level": level} for level in (None, float("nan"), 3)]
    assert [p.level for p in load(tmp_path / "x.jsonl", rows)] == ["-", "-", "3"]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_chats_and_nested_columns(tmp_path, form):
    """Rows as verl's data sets have them."""
    turns = [{"role": "system", "content": "Think."}, {"role": "user", "content": "1+1?"}]
    rows = [
        {"prompt": turns, "reward_model": {"ground_truth": "2"}, "extra_info": {"level": "easy"}},
        {"prompt": turns[1:], "reward_model": {"ground_truth": "2"}, "extra_info": {"level": None}},
    ]
    cfg = ProblemConfig(
        prompt_column="prompt", answer_column="reward_model.ground_truth", level_column="extra_info.level"
    )
    path = tmp_path / f"set.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        jsonl(path, rows)
    first, second = load_problems(str(path), cfg)
    assert first.chat == tuple(turns) and second.chat == tuple(turns[1:])
    assert (first.problem, second.problem) == ("system: Think.\n\nuser: 1+1?", "1+1?")
    assert (first.answer, first.level, second.level) == ("2", "easy", "-")
    with pytest.raises(BadInput, match=r"row 1: no column reward_model\.truth, only prompt, reward_model, extra_info"):
        load_problems(str(path), replace(cfg, answer_column="reward_model.truth"))


@pytest.mark.parametrize("field", [{"system_prompt": "Think."}, {"user_template": "Solve: {problem}"}])
def test_a_chat_is_used_as_it_is(tmp_path, field):
    with pytest.raises(BadInput, match=rf"problems\.{next(iter(field))}=.*row 1 holds a chat, which is used as it is"):
        load(tmp_path / "x.jsonl", [chat(("user", "a"))], ProblemConfig(**field))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no problems"),
        (
            [{"problem": "a", "answer": "1"}, {"problem": "b"}],
            "row 2: no column answer, only problem; set problems.answer",
        ),
        (
            [{"text": "a", "answer": "1"}],
            "row 1: no column problem, only text, answer; set problems.prompt_column",
        ),
        ([{"problem": "a", "answer": None}], "row 1: column answer holds no text"),
        ([{"problem": "a", "answer": "  "}], "row 1: column answer holds no text"),
        ([{"problem": "a", "answer": "so\n####  "}], "row 1: nothing stands behind '####'"),
        ([{"problem": ["a"], "answer": "1"}], "row 1: column problem holds no text"),
        ([["a", "1"]], "row 1: not a JSON object"),
        ([{"problem": float("nan"), "answer": "1"}], "row 1: column problem holds no text"),
        ([{"problem": "a", "answer": float("inf")}], "row 1: column answer holds no text"),
        ([{"problem": "a", "answer": ["1", "2"]}], "row 1: column answer holds a list of 2 answers; one is needed"),
        ([{"problem": "a", "answer": []}], "row 1: column answer holds a list of 0 answers"),
        ([{"problem": "a \ud835", "answer": "1"}], "row 1: holds half of a surrogate pair"),
        ([{"problem": [], "answer": "1"}], "row 1: column problem holds no text"),
        ([chat(("user", "a"), ("assistant", "b"))], "row 1: column problem must end with a turn that the model is to"),
        ([chat(("user", " "))], "row 1: column problem must end with a turn"),
        ([chat(("tool", "a"))], "row 1: turn 1 of column problem must hold a role"),
        ([chat(("user", 1))], "row 1: turn 1 of column problem must hold a role"),
        ([{"problem": [{"role": "user", "content": "a", "name": "b"}], "answer": "1"}], "row 1: turn 1 of column"),
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
