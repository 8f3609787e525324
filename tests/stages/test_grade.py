"""Grading of a pool: what of a solution counts."""

import pytest
from made_pool import sample, write_pool

from o1p_jax.config.tree import GradingConfig
from o1p_jax.stages.grade import grade


@pytest.mark.parametrize("unclosed", [False, True])
def test_a_thought_that_the_prompt_opened_is_no_answer_until_it_is_closed(tmp_path, unclosed):
    texts = [r"\boxed{7}, or", r"\boxed{7}</think>It is \boxed{8}.", r"\boxed{8}</think>It is \boxed{7}."]
    rows = [sample("thinks", k, 9, True, completion=text, inside_thought=True) for k, text in enumerate(texts)]
    rows += [sample("plain", k, 9, True, completion=text, inside_thought=False) for k, text in enumerate(texts)]
    pool, _ = write_pool(tmp_path / "pool", [row | {"grade": None} for row in rows])
    found = grade(pool, GradingConfig(unclosed_thought=unclosed)).read()["grade"].to_pylist()
    assert found == ["correct" if unclosed else "unparsed", "wrong", "correct", "correct", "wrong", "correct"]
    assert pool.read(["completion"])["completion"].to_pylist() == texts + texts
