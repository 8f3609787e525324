"""Processes are told apart, on machines of the same name too."""

import subprocess
import sys

import pytest

from o1p_jax.runtime import owner


def test_a_process_lives_until_it_ends():
    code = "from o1p_jax.runtime import owner; print(owner.this_process(), flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        text = other.stdout.readline().strip()
        assert owner.alive(text) is True
        other.kill()
        other.wait()
        assert owner.alive(text) is False
    assert owner.alive(owner.this_process()) is True


def test_a_number_that_came_again_is_another_process():
    machine, number, start = owner.this_process().split("-")
    assert owner.alive(f"{machine}-{number}-{int(start) + 1}") is False


def test_of_another_machine_and_of_other_text_nothing_is_known():
    _, number, start = owner.this_process().split("-")
    for text in (f"0123456789ab-{number}-{start}", "", "None", "host-1-2"):
        assert owner.alive(text) is None


def test_machines_are_told_apart_by_their_start_and_the_numbering_of_processes(monkeypatch):
    texts = set()
    for boot, numbering in (("a", "1"), ("b", "1"), ("a", "2")):
        monkeypatch.setattr(owner, "_boot_id", lambda boot=boot: boot)
        monkeypatch.setattr(owner, "_process_numbering", lambda numbering=numbering: numbering)
        owner._machine.cache_clear()
        texts.add(owner.this_process())
    owner._machine.cache_clear()
    assert len(texts) == 3


@pytest.mark.parametrize("hidden", [True, False])
def test_a_process_that_is_hidden_from_this_user_is_not_dead(monkeypatch, hidden):
    machine, number, start = owner.this_process().split("-")

    def kill(*_):
        raise PermissionError if hidden else ProcessLookupError

    monkeypatch.setattr(owner, "_start", lambda _: None)
    monkeypatch.setattr(owner.os, "kill", kill)
    assert owner.alive(f"{machine}-{number}-{start}") is (None if hidden else False)
