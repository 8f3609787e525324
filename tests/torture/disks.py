"""The disk runs full at random stages; once there is room, the same command goes on."""

import random
import subprocess
from pathlib import Path

from tests.torture.job import Command, Home

LOG_BYTES = 20_000
"""The command's own log is a file as well."""


def trial(home: Home, rng: random.Random, number: int) -> None:
    """Does the job where there is too little room, and then where there is enough."""
    (small if number % 2 and may_mount(home.folder / f"mount-{number}") else limited)(home, rng, number)


def small(home: Home, rng: random.Random, number: int) -> None:
    """Does the job on a file system of a random size, then makes it large."""
    needed = sum(path.stat().st_blocks * 512 for path in home.run.rglob("*"))
    disk = home.folder / f"disk-{number}"
    disk.mkdir()
    mount(disk, int(rng.uniform(0.02, 1.1) * needed))
    try:
        Command(home, home.job(disk / "run")).judge((0, 74))
        mount(disk, 4 * needed, again=True)
        Command(home, home.job(disk / "run")).judge((0,))
        home.assert_same(disk / "run")
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def limited(home: Home, rng: random.Random, number: int) -> None:
    """Does the job where no file may become larger than a random size, which needs no rights; then without a limit."""
    run = home.folder / f"limited-{number}"
    largest = max(path.stat().st_size for path in home.run.rglob("*") if path.is_file())
    limit = LOG_BYTES * (largest / LOG_BYTES) ** rng.random()
    Command(home, home.job(run), largest_file=int(limit)).judge((0, 74))
    Command(home, home.job(run)).judge((0,))
    home.assert_same(run)


def mount(folder: Path, size: int, again: bool = False) -> None:
    options = f"size={size // 1024 + 1}k" + (",remount" if again else "")
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)


def may_mount(folder: Path) -> bool:
    """Returns whether this process may mount a file system."""
    folder.mkdir()
    try:
        mount(folder, 2**20)
    except (OSError, subprocess.CalledProcessError):
        return False
    subprocess.run(["umount", folder], check=True)
    return True
