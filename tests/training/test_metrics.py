"""The log of a training run holds each step once, and tells what of it was lost."""

import json

import pytest

from o1p_jax.training.metrics import MetricsLog


def line(step: int) -> str:
    return json.dumps({"step": step, "loss": step / 2})


def steps_after(run, done: int) -> list[int]:
    MetricsLog(run, done, {}).close()
    return [json.loads(text)["step"] for text in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_line_cut_off_by_a_kill_goes_without_a_word(tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_text("\n".join([line(1), line(2), line(3), '{"step": 4, "lo']))
    assert steps_after(tmp_path, 2) == [1, 2]
    assert capsys.readouterr().err == ""


DAMAGES = {
    "cut": b'{"step": 2, "lo',
    "no UTF-8": b'{"step": 2, "loss": "\xff\xfe"}',
    "another type": b"[2]",
    "another number": b'{"step": "two"}',
    "binary": bytes(range(128, 200)),
    "empty": b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_line_costs_itself_alone_and_is_told(tmp_path, capsys, damage):
    lines = [line(1).encode(), DAMAGES[damage], *(line(step).encode() for step in (3, 4))]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    assert steps_after(tmp_path, 4) == [1, 3, 4]
    told = capsys.readouterr().err
    assert told == f"{tmp_path / 'metrics.jsonl'}: damaged: the figures of 1 of 4 steps are lost (2)\n"


def test_a_log_that_is_gone_is_told(tmp_path, capsys):
    assert steps_after(tmp_path, 20) == []
    assert "the figures of 20 of 20 steps are lost (1, 2, 3, 4, 5, 6, 7, 8, ...)" in capsys.readouterr().err
