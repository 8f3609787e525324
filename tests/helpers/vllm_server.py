"""Real vLLM servers on the CPU, for tests that are marked vllm."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from o1p_jax.sampling import vllm


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def serving(folder: Path, log: Path, port: int, max_length: int) -> Iterator[str]:
    """Yields the base URL of a server of the model in `folder`, which stops at the end of the block."""
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", f"--model={folder}", "--host=127.0.0.1",
        f"--port={port}", "--dtype=float32", f"--max-model-len={max_length}", "--enforce-eager",
        f"--kv-cache-memory-bytes={2**28}",
    ]  # fmt: skip
    command += [] if (folder / "tokenizer.json").is_file() else ["--skip-tokenizer-init"]
    environment = os.environ | vllm._CPU_ENVIRONMENT | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with log.open("w") as out, subprocess.Popen(command, env=environment, stdout=out, stderr=out) as server:
        try:
            _wait(f"http://127.0.0.1:{port}/health", server, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()


def _wait(url: str, process: subprocess.Popen, log: Path, timeout_s: float = 300) -> None:
    until = time.monotonic() + timeout_s
    while time.monotonic() < until and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except OSError:
            time.sleep(1)
    raise AssertionError(f"the server did not start:\n{log.read_text()[-3000:]}")
