from hypothesis import given
from hypothesis import strategies as st

from o1p_jax.evaluation.pareto import front

NUMBERS = st.integers(0, 9).map(float)  # few, so that points are often equal
POINTS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=12)


def test_the_front_by_hand():
    points = [(100.0, 80.0), (60.0, 85.0), (50.0, 70.0), (60.0, 90.0), (40.0, 60.0), (40.0, 55.0)]
    assert front(points) == [4, 2, 3]  # from the fewest tokens on


@given(POINTS)
def test_each_point_is_on_the_front_or_beaten_by_one_on_it(points):
    best = front(points)
    assert best and [points[i] for i in best] == sorted(points[i] for i in best)
    for i, (tokens, accuracy) in enumerate(points):
        better = [points[j] for j in best if points[j] != (tokens, accuracy)]
        beaten = any(t <= tokens and a >= accuracy for t, a in better)
        assert beaten != (i in best)
