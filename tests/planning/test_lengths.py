import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_pool import sample, write_pool

from o1p_jax.config.tree import BatchConfig, ProblemConfig, RunConfig, SamplingConfig
from o1p_jax.planning.lengths import drawn, planned_lengths
from o1p_jax.runtime.errors import BadInput

CFG = RunConfig(
    problems=ProblemConfig(max_prompt_tokens=100),
    sampling=SamplingConfig(max_tokens=1000),
    batch=BatchConfig(row_length=600, too_long="drop"),
)


@given(st.integers(2, 1000), st.integers(1000, 4000))
def test_drawn_lengths_have_the_mean_and_keep_to_the_cap(mean, cap):
    lengths = np.array(drawn(mean, cap, 500))
    assert lengths.min() >= 1 and lengths.max() <= cap and abs(lengths.mean() - mean) <= 1
    assert lengths.tolist() == drawn(mean, cap, 500)


def test_a_mean_at_the_cap_means_that_all_are_cut_off_and_one_above_it_is_refused():
    assert set(drawn(700, 700, 20)) == {700}
    with pytest.raises(BadInput, match=r"--solution_tokens=701: must be at most sampling.max_tokens=700"):
        drawn(701, 700, 20)


def test_prompts_count_and_what_no_row_holds_is_left_out():
    lengths = planned_lengths(CFG, 400, 300)
    assert 300 < len(lengths) < 400 and min(lengths) > 100 and max(lengths) <= 600
    with pytest.raises(BadInput, match=r"batch.row_length=600: all samples would be longer"):
        planned_lengths(CFG, 400, 1000)


def test_a_pool_tells_its_own_lengths(tmp_path):
    rows = [sample("a", k, n, True, prompt_ids=[1] * 7) for k, n in enumerate((5, 20, 700))]
    write_pool(tmp_path / "pool", rows)
    cfg = RunConfig(pool=str(tmp_path / "pool"), sampling=CFG.sampling, problems=CFG.problems, batch=CFG.batch)
    assert planned_lengths(cfg, 6, 300) == [12, 27, 12, 27]
