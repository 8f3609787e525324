"""How a command ends: one line and its code, whatever happens, from the first moment on."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from o1p_jax.runtime import errors
from o1p_jax.runtime.entry import main
from o1p_jax.runtime.traces import traces_in

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def handlers_as_before():
    saved = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in saved.items():
        signal.signal(number, handler)


def test_transformers_says_nothing_of_pytorch_that_is_not_there():
    program = (
        "import importlib.util\n"
        "from o1p_jax.runtime.entry import main\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'torch' else found(name, *rest)\n"
        "main(lambda argv: print(__import__('transformers').is_torch_available()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.BadInput("a\nb"), 2),
        (errors.CorruptData("x"), 65),
        (errors.SamplerGone("x"), 69),
        (errors.NonFinite("x"), 70),
        (errors.InternalError("x"), 70),
        (errors.OutOfMemory("x"), 71),
        (errors.DiskError("x"), 74),
        (errors.Preempted("x"), 75),
        (KeyboardInterrupt(), 75),
        (ZeroDivisionError("x"), 70),
        (MemoryError("x"), 71),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 71),
        (PermissionError(errno.EACCES, "x", "/a/file"), 74),
        (OSError(errno.ENOSPC, "x", "/a/file"), 74),
        (NotADirectoryError(errno.ENOTDIR, "x", "/a/file/b"), 2),
        (OSError(errno.ENAMETOOLONG, "x", "/a/" + "n" * 300), 2),
    ],
)
def test_failures_are_one_line_and_their_code(error, code, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py"])

    def command(argv):
        raise error

    with pytest.raises(SystemExit) as exit_:
        main(command)
    assert exit_.value.code == code
    assert capsys.readouterr().err.count("\n") == 1


def test_an_internal_errors_trace_lies_in_the_runs_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train.py"])

    def command(argv):
        with traces_in(tmp_path / "run"):
            raise ZeroDivisionError("of all things")

    with pytest.raises(SystemExit) as exit_:
        main(command)
    [trace] = (tmp_path / "run" / "errors").iterdir()
    line = capsys.readouterr().err
    assert exit_.value.code == 70 and line.count("\n") == 1 and str(trace) in line
    assert "ZeroDivisionError: of all things" in trace.read_text() and "test_entry.py" in trace.read_text()


def test_what_a_user_can_act_on_leaves_no_trace(tmp_path):
    for error in (errors.BadInput("x"), MemoryError()):
        with pytest.raises(errors.O1pError), traces_in(tmp_path):
            raise error
    assert not list(tmp_path.iterdir())


def test_a_stop_that_a_library_takes_for_a_failure_is_a_stop(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train.py"])

    def interrupted_import():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        except BaseException as e:
            raise RuntimeError("Error calling __set_name__") from e

    def command(argv):
        with traces_in(tmp_path):
            try:
                interrupted_import()
            except RuntimeError:
                raise ModuleNotFoundError("Could not import module 'AutoTokenizer'") from None

    with pytest.raises(SystemExit) as exit_:
        main(command)
    assert exit_.value.code == 75 and not list(tmp_path.iterdir())
    assert capsys.readouterr().err == "error: stopped by SIGTERM; run the same command to go on\n"


WAITING = """
import sys, time
from o1p_jax.runtime.entry import main

def rest():  # in short naps: a signal between Python's last look for one and a nap is heeded after the nap
    for _ in range(600):
        time.sleep(0.1)

def command(argv):
    print("begun", flush=True)
    {}

main(command)
"""


def started(body: str, **pipes) -> subprocess.Popen:
    command = [sys.executable, "-c", WAITING.format(body)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **pipes)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "body",
    ["rest()", "try:\n        rest()\n    except Exception:\n        rest()"],
    ids=["asleep", "swallowed by a library"],
)
def test_a_signal_ends_a_command_with_its_line(number, body):
    process = started(body)
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 75
    assert told == f"error: stopped by {number.name}; run the same command to go on\n"


@pytest.mark.parametrize("body", ["print('more')", "print('more'); sys.exit()", "print('more', file=sys.stderr)"])
def test_output_that_nobody_reads_ends_a_command_without_a_word(body):
    process = started(f"sys.stdin.readline(); {body}", stdin=subprocess.PIPE)
    assert process.stdout is not None and process.stdin is not None and process.stderr is not None
    assert process.stdout.readline() == "begun\n"
    process.stdout.close()  # as head does
    if "stderr" in body:
        process.stderr.close()
    process.stdin.write("\n")
    process.stdin.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr.closed or process.stderr.read() == ""


def test_another_broken_pipe_is_an_error(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train.py"])
    with pytest.raises(SystemExit) as exit_:
        main(lambda _: (_ for _ in ()).throw(BrokenPipeError(errno.EPIPE, "a worker's")))
    assert exit_.value.code == 70 and "BrokenPipeError" in capsys.readouterr().err


@pytest.mark.slow
def test_a_signal_in_the_first_moments_of_a_job_ends_it_with_its_line(tmp_path):
    """While the interpreter itself starts nothing can be done; from the first line on everything is."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, ROOT / "launch" / "train.py", f"--run={tmp_path / 'run'}"]
    for wait in (0.0, 0.5, 2.0):  # imports, imports of JAX, preflight: whichever it is on this machine
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None and process.stdout.readline() == f"run      {tmp_path / 'run'}\n"
        time.sleep(wait)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=120)
        assert process.returncode == 75, told
        assert told.splitlines()[-1] == "error: stopped by SIGTERM; run the same command to go on"
