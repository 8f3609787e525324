"""Graded rollouts made up for the tests of evaluation."""

from collections.abc import Sequence

import pyarrow as pa

from o1p_jax.data.pool import GRADES, PROBLEMS, SAMPLES

SCHEMA = pa.unify_schemas([PROBLEMS, SAMPLES, GRADES]).append(pa.field("thought_tokens", pa.int64()))


def row(
    problem: str,
    tokens: int,
    grade: str,
    *,
    sample: int = 0,
    level: str = "1",
    finish: str = "stop",
    text: str | None = None,
    answer: str = "4",
    thought: int | None = None,
) -> dict:
    """One row of `SCHEMA`."""
    return {
        "problem_id": problem,
        "source": "made",
        "split": "test",
        "level": level,
        "problem": f"What is {problem}?",
        "answer": answer,
        "prompt_ids": [1],
        "completion": f"So \\boxed{{{answer}}}." if text is None else text,
        "completion_ids": list(range(tokens)),
        "sample_idx": sample,
        "seed": 0,
        "finish_reason": finish,
        "pred": answer if grade == "correct" else None,
        "grade": grade,
        "thought_tokens": thought,
    }


def rollouts(rows: Sequence[dict]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def simple(tokens: Sequence[int], grades: str, level: str = "1") -> pa.Table:
    """One sample for each of the problems p0, p1, ...; in `grades`, 'c' stands for correct."""
    return rollouts(
        [
            row(f"p{i}", n, "correct" if g == "c" else "wrong", level=level)
            for i, (n, g) in enumerate(zip(tokens, grades, strict=True))
        ]
    )
