"""Pools: tables that belong together, joined by their keys."""

import json

import pytest
from made_pool import sample, write_pool

from o1p_jax.data.pool import GRADES, PROBLEMS, SAMPLES, Pool
from o1p_jax.data.records import Problem, problem_id
from o1p_jax.runtime.errors import BadInput, CorruptData
from o1p_jax.runtime.files import write_json_with_sum

ROWS = [sample(p, k, 3 + k, k == 0, level=p, prompt_ids=[ord(p)]) for p in "ab" for k in range(2)]


def create(path, identity=None, n=5, per_shard=2, **facts):
    problems = [
        Problem(problem_id=problem_id(str(i), "7"), source="s", split="t", level="1", problem=str(i), answer="7")
        for i in range(n)
    ]
    prompts = {p.problem_id: [i, i + 1] for i, p in enumerate(problems)}
    return Pool.create(path, identity=identity or {"seed": 0, "stop_ids": (1, 2)}, facts=facts, problems=problems,
                       prompts=prompts, problems_per_shard=per_shard)  # fmt: skip


def test_the_columns_are_the_published_ones():
    assert PROBLEMS.names == [
        "problem_id",
        "source",
        "split",
        "level",
        "problem",
        "answer",
        "prompt_ids",
        "inside_thought",
    ]
    assert SAMPLES.names == [
        "problem_id",
        "sample_idx",
        "seed",
        "completion",
        "completion_ids",
        "finish_reason",
        "logprobs",
    ]
    assert GRADES.names == ["problem_id", "sample_idx", "pred", "grade"]


def test_an_empty_pool_waits_for_the_samples_of_its_problems(tmp_path):
    pool = create(tmp_path / "pool", model="m")
    assert pool.samples.missing_shards() == [0, 1, 2] and not pool.complete and pool.facts["model"] == "m"
    assert pool.problems.read(["prompt_ids"])["prompt_ids"].to_pylist() == [[i, i + 1] for i in range(5)]
    again = create(tmp_path / "pool", per_shard=3)  # the layout is the first one's
    assert again.samples.shards == 3 and again.key == pool.key


def test_another_identity_is_refused_by_name(tmp_path):
    create(tmp_path / "pool")
    for identity, message in (
        ({"seed": 1, "stop_ids": (1, 2)}, "seed=0, not 1"),
        ({"seed": 0}, "stop_ids="),
        ({"seed": 0, "stop_ids": (1, 2), "top_p": 0.5}, "top_p=None, not 0.5"),
    ):
        with pytest.raises(BadInput, match=message):
            create(tmp_path / "pool", identity)


def test_columns_come_from_all_tables_in_the_order_asked_for(tmp_path):
    pool, grades = write_pool(tmp_path, ROWS[:3], ROWS[3:])
    names = ("level", "grade", "problem_id", "completion_ids", "prompt_ids", "sample_idx")
    table = pool.read(names, grades)
    assert tuple(table.column_names) == names
    assert table.to_pylist() == [{name: row[name] for name in names} for row in ROWS]


def test_a_maker_that_was_killed_leaves_nothing_in_the_way(tmp_path):
    # The last one first.
    written = ["pool.json", "samples/_meta.json", "problems/part-00000.parquet", "problems/_meta.json"]
    for lost in range(1, len(written) + 1):
        path = tmp_path / str(lost)
        key = create(path).key
        for name in written[:lost]:
            (path / name).unlink()
        assert not Pool.lies_in(path) and create(path).key == key and Pool.lies_in(path)


def test_tables_whose_rows_differ_are_not_joined(tmp_path):
    pool, _ = write_pool(tmp_path / "a", ROWS[:2])
    _, others = write_pool(tmp_path / "b", ROWS[2:])
    with pytest.raises(CorruptData, match="not the rows of"):
        pool.read(("grade",), others)


def test_what_is_no_pool_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no pool here"):
        Pool(tmp_path)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(BadInput, match="exists and is not a pool"):
        create(tmp_path)
    create(tmp_path / "pool")
    write_json_with_sum(tmp_path / "pool" / "pool.json", {"format": 0})
    with pytest.raises(BadInput, match="of another version"):
        Pool(tmp_path / "pool")


@pytest.mark.parametrize("change", [[], {"identity": 5}, {"problems_per_shard": "two"}, {"problems_per_shard": 3}])
def test_other_facts_than_were_written_are_damage(tmp_path, change):
    path = create(tmp_path / "pool").path / "pool.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(facts | change if change else change))
    with pytest.raises(CorruptData, match=r"pool.json: "):
        Pool(tmp_path / "pool")
