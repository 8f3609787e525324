"""Files of other programs, row by row: what is taken, and what is refused with which words."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from o1p_jax.data.imports import FORMATS, check_files, find_format, read_solutions
from o1p_jax.data.records import problem_id
from o1p_jax.runtime.errors import BadInput

ROW = {"prompt_ids": [1, 2], "completion_ids": [5, 6, 0], "problem": "1+1?", "answer": "2"}
OF_FORMAT = {
    "jsonl": {**ROW, "completion": "two", "finish_reason": "stop", "seed": 7, "reward": 3.0, "grade": "wrong"},
    "trl": {
        "step": 1, "prompt": "1+1?", "completion": "two", "accuracy_reward": 1.0, "advantage": 0.5, "solution": "2",
        "prompt_ids": [1, 2], "completion_ids": [5, 6, 0],
    },
    "verl": {
        "input": "user\n1+1?", "output": "two", "gts": "2", "score": 1.0, "step": 1, "request_id": "a",
        "prompt_ids": [1, 2], "response_ids": [5, 6, 0], "response_mask": [1, 1, 1],
    },
    "open_r1": {
        "problem": "1+1?", "answer": "2", "generations": ["two", "deux"], "finish_reasons": ["stop", "length"],
        "correctness_math_verify": [True, True], "prompt_ids": [1, 2], "completion_ids": [[5, 6, 0], [5, 7]],
    },
}  # fmt: skip


def jsonl(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path, form="jsonl", steps=(), **columns):
    return list(read_solutions(check_files([str(path)]), {**FORMATS[form], **columns}, steps))


def refused(path, *rows, form="jsonl", steps=()):
    with pytest.raises(BadInput) as e:
        read(jsonl(path / "rows.jsonl", *rows), form, steps)
    assert "\n" not in str(e.value)
    return str(e.value).replace(f"{path}/", "")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_each_format_is_told_by_its_columns_and_read(form, suffix, tmp_path):
    path = tmp_path / f"rows.{suffix}"
    if suffix == "jsonl":
        jsonl(path, OF_FORMAT[form])
    else:
        pq.write_table(pa.Table.from_pylist([OF_FORMAT[form]]), path)
    assert find_format(path) == form
    first, *others = read(path, form)
    assert (first.prompt_ids, first.completion_ids, first.answer) == ((1, 2), (5, 6, 0), "2")
    assert (first.completion, first.split, first.source, first.level) == ("two", "train", path.name, "-")
    assert first.problem == ("1+1?" if form in ("jsonl", "open_r1") else "")
    assert first.finish_reason == ("stop" if form in ("jsonl", "open_r1") else None)
    assert first.seed == (7 if form == "jsonl" else None)
    assert len(others) == (form == "open_r1")
    for other in others:
        assert (other.completion, other.completion_ids, other.finish_reason) == ("deux", (5, 7), "length")
        assert other.where.endswith("row 1, solution 2")


def test_columns_may_lie_inside_others(tmp_path):
    row = {**ROW, "reward_model": {"ground_truth": "3"}}
    [found] = read(jsonl(tmp_path / "x.jsonl", row), answer="reward_model.ground_truth")
    assert found.answer == "3"


def test_columns_can_be_called_otherwise(tmp_path):
    row = {"p": [1], "c": [2], "gold": 4, "text": "x"}
    [found] = read(jsonl(tmp_path / "rows.jsonl", row), prompt_ids="p", completion_ids="c", answer="gold")
    assert (found.prompt_ids, found.completion_ids, found.answer, found.completion) == ((1,), (2,), "4", None)


@given(problems=st.integers(1, 4), each=st.integers(1, 4), data=st.data())
@settings(max_examples=50, deadline=None)
def test_a_servers_answer_holds_many_solutions_in_one_row(tmp_path_factory, problems, each, data):
    prompts = [[i + 1] for i in range(problems)]
    of_each = data.draw(st.booleans())
    answers = [str(i // (each if of_each else 1)) for i in range(problems * (each if of_each else 1))]
    row = {"prompt_ids": prompts, "completion_ids": [[i] for i in range(problems * each)], "answer": answers}
    found = read(jsonl(tmp_path_factory.mktemp("rows") / "rows.jsonl", row))
    assert [s.completion_ids for s in found] == [(i,) for i in range(problems * each)]
    assert [s.prompt_ids for s in found] == [(i // each + 1,) for i in range(problems * each)]
    assert [s.answer for s in found] == [str(i // each) for i in range(problems * each)]


@given(rows=st.lists(st.tuples(st.lists(st.integers(0, 9), min_size=1), st.lists(st.integers(0, 9))), min_size=1))
@settings(max_examples=50, deadline=None)
def test_jsonl_and_parquet_give_the_same(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("rows")
    rows = [{"prompt_ids": p, "completion_ids": c, "answer": "1", "source": "s"} for p, c in rows]
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    one, other = read(jsonl(folder / "rows.jsonl", *rows)), read(folder / "rows.parquet")
    assert [s._replace(where="") for s in one] == [s._replace(where="") for s in other]


def test_a_missing_value_may_be_null_or_nan(tmp_path):
    nothing = {"problem": None, "finish_reason": None, "level": float("nan"), "seed": float("nan"), "step": None}
    [found] = read(jsonl(tmp_path / "rows.jsonl", ROW | nothing))
    assert (found.problem, found.finish_reason, found.level, found.seed) == ("", None, "-", None)


def test_gold_answers_are_read_as_those_of_problem_sets(tmp_path):
    for gold in ("3 * 6 = 18\n#### 18", ["18"], '["18"]', 18):
        [found] = read(jsonl(tmp_path / "rows.jsonl", ROW | {"answer": gold}))
        assert problem_id(found.problem, found.answer) == problem_id("1+1?", "18")


def test_text_only_is_refused_with_reason_and_remedy(tmp_path):
    for form, ids in (("trl", "completion_ids"), ("verl", "response_ids"), ("open_r1", "completion_ids")):
        text = {k: v for k, v in OF_FORMAT[form].items() if k not in (ids, "response_mask")}
        message = refused(tmp_path, text, form=form)
        assert f"row 1: no column {ids}" in message and "another sequence would be trained" in message
        assert "--completion_ids_column" in message and "o1p presample" in message
    without_prompt = {k: v for k, v in ROW.items() if k != "prompt_ids"}
    assert "no column prompt_ids" in refused(tmp_path, without_prompt)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"completion_ids": None}, "column completion_ids must hold whole numbers"),
        ({"completion_ids": [1.5]}, "column completion_ids must hold whole numbers"),
        ({"completion_ids": [1, None]}, "column completion_ids must hold whole numbers"),
        ({"completion_ids": [True]}, "column completion_ids must hold whole numbers"),
        ({"completion_ids": float("nan")}, "column completion_ids must hold whole numbers"),
        ({"completion_ids": "5 6"}, "column completion_ids must hold whole numbers"),
        ({"completion_ids": [[5], "6"]}, "solution 2: column completion_ids must hold whole numbers"),
        ({"completion_ids": [[5], [6]], "answer": ["1", "2", "3"]}, "column answer holds 3 values for 2 solutions"),
        ({"completion_ids": [[5], [6]], "answer": []}, "column answer holds 0 values for 2 solutions"),
        ({"prompt_ids": []}, "column prompt_ids is empty"),
        ({"answer": None}, "column answer holds no gold answer"),
        ({"answer": float("nan")}, "column answer holds no gold answer"),
        ({"answer": "so ####"}, "column answer holds no gold answer"),
        ({"answer": {"value": 2}}, "column answer holds no text"),
        ({"problem": ["1+1?"]}, "column problem holds no text"),
        ({"finish_reason": "abort"}, "column finish_reason says 'abort'; stop and length"),
        ({"finish_reason": "of\nseveral lines"}, "column finish_reason says 'of\\nseveral lines'; stop"),
        ({"completion_mask": [1, 0, 1]}, "column completion_mask marks tokens that the model did not sample"),
        ({"completion_mask": [1, 1]}, "column completion_mask marks tokens"),
    ],
)
def test_bad_rows_are_named(tmp_path, change, message):
    said = refused(tmp_path, ROW, ROW | change)
    assert said.startswith("rows.jsonl, row 2") and message in said


def test_a_missing_answer_column_is_named_with_its_flag(tmp_path):
    row = {k: v for k, v in ROW.items() if k != "answer"}
    assert "row 1: no column answer; name the gold answers' with --answer_column" in refused(tmp_path, row)


def test_rows_of_several_training_steps_need_a_choice(tmp_path):
    rows = [ROW | {"step": step, "completion_ids": [step]} for step in (1, 1, 2, 3)]
    message = refused(tmp_path, *rows)
    assert "row 3: of training step 2" in message and "row 1 of step 1" in message and "--steps" in message
    found = read(tmp_path / "rows.jsonl", steps=(1, 3))
    assert [s.completion_ids for s in found] == [(1,), (1,), (3,)]
    assert "no row of" in refused(tmp_path, *rows, steps=(9,))
    assert "column step holds no step" in refused(tmp_path, ROW, steps=(1,))
    assert "of training step none" in refused(tmp_path, ROW | {"step": 1}, ROW)
    as_text = jsonl(tmp_path / "text.jsonl", ROW | {"step": "1"}, ROW | {"step": "2"})  # verl has written these
    assert len(read(as_text, steps=(2,))) == 1


def test_bad_files_are_named(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "list.jsonl").write_text("[1]\n")
    (tmp_path / "broken.jsonl").write_text('{"a": 1\n')
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    (tmp_path / "rows.csv").write_text("a,b")
    (tmp_path / "folder.jsonl").mkdir()
    good = jsonl(tmp_path / "good.jsonl", ROW)
    jsonl(tmp_path / "copy.jsonl", ROW)
    for names, message in [
        (["empty.jsonl"], "holds no rows; leave the file out"),
        (["good.jsonl", "empty.jsonl"], "empty.jsonl: holds no rows"),
        (["list.jsonl"], "row 1: not a JSON object"),
        (["broken.jsonl"], "row 1: not valid JSON"),
        (["bad.parquet"], "not readable as Parquet"),
        (["rows.csv"], "not a .jsonl or .parquet file"),
        (["folder.jsonl"], "no such file"),
        (["none.jsonl"], "no such file"),
        (["good.jsonl", "good.jsonl"], "name each file once"),
        (["good.jsonl", "copy.jsonl"], f"the same as {good}"),
    ]:
        with pytest.raises(BadInput, match=message) as e:
            list(read_solutions(check_files([str(tmp_path / name) for name in names]), FORMATS["jsonl"]))
        assert "\n" not in str(e.value)
    with pytest.raises(BadInput, match="holds no rows"):
        find_format(tmp_path / "empty.jsonl")


def test_bytes_are_told_while_reading(tmp_path):
    path = jsonl(tmp_path / "rows.jsonl", *[ROW | {"answer": str(i)} for i in range(9)])
    read_bytes = []
    found = read_solutions([path], FORMATS["jsonl"], on_read=read_bytes.append)
    next(found)
    assert read_bytes == []  # a row at a time: nothing is read ahead
    assert len(list(found)) == 8 and sum(read_bytes) == path.stat().st_size
