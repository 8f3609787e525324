import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from o1p_jax.devices.mesh import make_mesh
from o1p_jax.runtime.errors import CorruptData, DiskError, NonFinite, Preempted
from o1p_jax.runtime.signals import preemptible
from o1p_jax.training import checkpoint

pytestmark = pytest.mark.core


def state_on(mesh: str, scale: float = 1.0) -> dict:
    rows = NamedSharding(make_mesh(mesh), P("fsdp", "tensor"))
    return {"w": jax.device_put(jnp.arange(64.0).reshape(8, 8) * scale, rows), "step": jnp.int32(scale)}


def save_steps(root: Path, *steps: int, keep: int = 5) -> None:
    with checkpoint.Writer(root, keep) as writer:
        for step in steps:
            writer.save(step, {"state": state_on("8x1", step)}, {"seed": 0})


def test_a_checkpoint_comes_back_on_another_mesh(tmp_path):
    save_steps(tmp_path, 1)
    folder = tmp_path / "00000001"
    assert checkpoint.newest(tmp_path) == folder
    assert checkpoint.facts_of(folder) == {"seed": 0}
    wanted = state_on("2x4", 0.0)
    restored = checkpoint.restore(folder, {"state": wanted})["state"]
    assert checkpoint.state_digest(restored) == checkpoint.state_digest(state_on("8x1"))
    assert restored["w"].sharding.is_equivalent_to(wanted["w"].sharding, 2)


class HeldUp:
    """Lets checkpoints be finished only after `go_on`, or not at all where a `failure` is given."""

    def __init__(self, monkeypatch, failure: OSError | None = None):
        self.go_on, sums = threading.Event(), checkpoint._sums

        def held_up(folder: Path) -> dict[str, str]:
            assert self.go_on.wait(60)
            if failure:
                raise failure
            return sums(folder)

        monkeypatch.setattr(checkpoint, "_sums", held_up)


@pytest.mark.parametrize("mesh", ["1x1", "4x2"])
def test_arrays_are_written_as_they_were_though_steps_go_on_in_their_memory(tmp_path, monkeypatch, mesh):
    held_up = HeldUp(monkeypatch)
    state, before = state_on(mesh), checkpoint.state_digest(state_on(mesh))
    with checkpoint.Writer(tmp_path, 2) as writer:
        folder = writer.save(1, {"state": state}, {})
        for _ in range(3):
            state = jax.jit(lambda s: jax.tree.map(lambda x: -x - 1, s), donate_argnums=0)(state)
        assert checkpoint.steps(tmp_path) == []
        held_up.go_on.set()
        writer.wait()
        assert checkpoint.steps(tmp_path) == [folder]
    restored = checkpoint.restore(folder, {"state": state_on(mesh)})["state"]
    assert checkpoint.state_digest(restored) == before != checkpoint.state_digest(state)


def test_a_failed_write_is_told_by_the_next_save_or_at_the_end(tmp_path, monkeypatch):
    save_steps(tmp_path, 1)
    HeldUp(monkeypatch, OSError(errno.ENOSPC, "")).go_on.set()
    told = "00000002: No space left on device; free or grant space there"
    with checkpoint.Writer(tmp_path, 2) as writer:
        writer.save(2, {"state": state_on("8x1")}, {})
        with pytest.raises(DiskError, match=told):
            writer.save(3, {"state": state_on("8x1")}, {})
    with pytest.raises(DiskError, match=told):
        save_steps(tmp_path, 2)
    assert [folder.name for folder in tmp_path.iterdir()] == ["00000001"]


def test_a_failed_write_stands_behind_the_error_that_ends_the_run(tmp_path, monkeypatch, capsys):
    HeldUp(monkeypatch, OSError(errno.ENOSPC, "")).go_on.set()
    with pytest.raises(NonFinite), checkpoint.Writer(tmp_path, 2) as writer:
        writer.save(2, {"state": state_on("8x1")}, {})
        raise NonFinite
    assert "00000002: No space left on device; free or grant space there" in capsys.readouterr().err


def test_a_stop_while_a_checkpoint_is_read_is_a_stop(tmp_path, monkeypatch):
    save_steps(tmp_path, 1)
    load = checkpoint.ocp.load_checkpointables

    def stopped_meanwhile(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return load(*args)

    monkeypatch.setattr(checkpoint.ocp, "load_checkpointables", stopped_meanwhile)
    with preemptible(), pytest.raises(Preempted, match="00000001: stopped by SIGTERM"):
        checkpoint.restore(tmp_path / "00000001", {"state": state_on("8x1", 0.0)})


def test_only_the_newest_are_kept_and_leftovers_of_killed_saves_go(tmp_path):
    save_steps(tmp_path, 1, 2)
    for leftover in ("00000003.orbax-checkpoint-tmp-1", "00000009"):
        (tmp_path / leftover).mkdir()
    assert checkpoint.newest(tmp_path) == tmp_path / "00000002"
    save_steps(tmp_path, 3, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000002", "00000003"]


def test_nothing_there_is_no_checkpoint(tmp_path):
    assert checkpoint.newest(tmp_path / "absent") is None
    (tmp_path / "00000001").mkdir()  # the first save was killed
    assert checkpoint.newest(tmp_path) is None


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "bit flip": _flip,
    "truncation": lambda path: path.write_bytes(path.read_bytes()[:-2]),
    "loss": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_any_damaged_file_is_noticed_and_the_step_before_taken(tmp_path, damage, capsys):
    save_steps(tmp_path, 1, 2)
    files = [f.relative_to(tmp_path / "00000002") for f in (tmp_path / "00000002").rglob("*") if f.is_file()]
    assert len(files) > 5
    for file in files:
        path = tmp_path / "00000002" / file
        whole = path.read_bytes()
        if not whole:
            continue
        DAMAGES[damage](path)
        assert checkpoint.newest(tmp_path) == tmp_path / "00000001", file
        if file.name != checkpoint.MANIFEST:
            assert f"{file.as_posix()} is" in capsys.readouterr().err
        path.write_bytes(whole)
    assert checkpoint.newest(tmp_path) == tmp_path / "00000002"


def test_after_falling_back_the_damaged_one_is_set_aside_by_the_next_save(tmp_path):
    save_steps(tmp_path, 1, 3)
    _flip(tmp_path / "00000003" / "_CHECKPOINT_METADATA")
    save_steps(tmp_path, 2, keep=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000002", "00000003.damaged"]
    assert checkpoint.newest(tmp_path) == tmp_path / "00000002"


def test_a_step_may_be_damaged_more_than_once(tmp_path):
    for _ in range(3):
        save_steps(tmp_path, 3)
        _flip(tmp_path / "00000003" / "_CHECKPOINT_METADATA")
        save_steps(tmp_path, 2)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["00000002", "00000003.damaged", "00000003.damaged2", "00000003.damaged3"]


@pytest.mark.parametrize("text", ["[]", '{"seed": 1}', "{", "\xff"])
def test_damaged_facts_are_not_believed(tmp_path, text):
    save_steps(tmp_path, 1, 2)
    (tmp_path / "00000002" / checkpoint.FACTS).write_text(text, encoding="latin1")
    with pytest.raises(CorruptData, match=r"facts.json: not as it was written; remove .*00000002"):
        checkpoint.facts_of(tmp_path / "00000002")
    assert checkpoint.newest_facts(tmp_path) == (tmp_path / "00000001", {"seed": 0})


@pytest.mark.parametrize("text", ["[]", "5", '{"a": 1}', "{", "\xff"])
def test_a_manifest_of_another_kind_is_damage(tmp_path, text):
    save_steps(tmp_path, 1, 2)
    (tmp_path / "00000002" / checkpoint.MANIFEST).write_text(text, encoding="latin1")
    assert checkpoint.newest(tmp_path) == tmp_path / "00000001"


def test_all_damaged_is_corrupt_data(tmp_path):
    save_steps(tmp_path, 1)
    _flip(tmp_path / "00000001" / checkpoint.FACTS)
    with pytest.raises(CorruptData, match="every checkpoint is damaged"):
        checkpoint.newest(tmp_path)


def test_digest_depends_on_every_bit_and_not_on_the_mesh():
    state = state_on("8x1")
    assert checkpoint.state_digest(state) == checkpoint.state_digest(state_on("1x1"))
    other = state | {"w": state["w"].at[3, 3].set(27.000002)}
    assert checkpoint.state_digest(state) != checkpoint.state_digest(other)
    assert checkpoint.state_digest(state) != checkpoint.state_digest({"v": state["w"], "step": state["step"]})


_FILL = """
import jax.numpy as jnp, numpy as np, resource, signal, sys
from pathlib import Path
from o1p_jax.training import checkpoint
from o1p_jax.runtime.errors import DiskError
root = Path(sys.argv[1])
def save(step, array):
    with checkpoint.Writer(root, 2) as writer:
        writer.save(step, {"state": {"w": array}}, {})
save(1, jnp.arange(1000))
if sys.argv[2] == "limit":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    save(2, np.random.default_rng(0).normal(size=2_000_000))
except DiskError as e:
    print(e)
    raise SystemExit(e.exit_code)
"""


@pytest.mark.slow
def test_a_full_disk_is_told_and_the_older_step_stays_whole(tmp_path):
    # A file system of 4 MB where we may mount one, else a limit on the size of files.
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", tmp_path]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    root = tmp_path / "checkpoints"
    try:
        done = subprocess.run([sys.executable, "-c", _FILL, root, "disk" if mounted else "limit"], capture_output=True,
                              text=True, check=False, cwd=Path(__file__).parents[2])  # fmt: skip
        assert done.returncode == DiskError.exit_code, done.stderr
        assert "00000002" in done.stdout and "free" in done.stdout
        assert "Traceback" not in done.stderr
        assert [p.name for p in root.iterdir()] == ["00000001"]
        assert checkpoint.damage(root / "00000001") is None
    finally:
        if mounted:
            subprocess.run(["umount", tmp_path], check=True)
