"""Training beside what users would run instead, on one core: `python -m benchmarks.run`.

Each side is a process of its own, which sets up, warms up once, and then works in turn with the others of its part, so
that a busy machine is as busy for all of them. A figure is the median of the repeats; ratios are in CPU-seconds.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
from pathlib import Path

PARTS = {
    "step": ("ours", "ours_full_remat", "pytorch"),
    "head": ("ours", "full_logits_jax", "full_logits_pytorch"),
    "recipe": ("ours", "ours_full_remat", "authors_recipe_pytorch"),
}
"""Part -> its sides, functions of sides.py; the others are compared with the first one."""
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}  # fmt: skip


class Side:
    """A process that does one side's work whenever it is told to."""

    def __init__(self, part: str, name: str):
        self.name = name
        self.turns: list[dict] = []
        command = [sys.executable, "-m", "benchmarks.sides", part, name]
        self.process = subprocess.Popen(
            command, cwd=Path(__file__).parents[1], env=os.environ | ENVIRONMENT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.facts = self._answer()

    def work(self) -> None:
        assert self.process.stdin is not None
        print("go", file=self.process.stdin, flush=True)
        self.turns.append(self._answer())

    def _answer(self) -> dict:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"error: {self.name} ended with code {self.process.wait()}; its last lines say why")
        return json.loads(line)

    def close(self) -> dict:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        median = {key: statistics.median(turn[key] for turn in self.turns) for key in ("cpu_s", "wall_s", "tokens")}
        return self.facts | median | {"peak_gib": max(turn["peak_gib"] for turn in self.turns)}


def processor() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.run", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="a file for all figures")
    args = parser.parse_args()
    figures = {"processor": processor(), "python": platform.python_version(), "repeats": args.repeats, "parts": {}}
    print(f"{figures['processor']}, one core, float32, medians of {args.repeats}\n")
    print("| part | side | tokens/CPU-s | CPU-s | clock s | peak GiB | CPU-s a token, of ours | peak, of ours |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for part in args.parts:
        sides = [Side(part, name) for name in PARTS[part]]
        for _ in range(args.repeats):
            for side in sides:
                side.work()
        results = {side.name: side.close() for side in sides}
        figures["parts"][part] = results
        ours = results[sides[0].name]
        for name, r in results.items():
            cost, own = r["cpu_s"] / r["tokens"], ours["cpu_s"] / ours["tokens"]
            print(
                f"| {part} | {name} | {r['tokens'] / r['cpu_s']:.1f} | {r['cpu_s']:.1f} | {r['wall_s']:.1f} | "
                f"{r['peak_gib']:.2f} | {cost / own:.2f} | {r['peak_gib'] / ours['peak_gib']:.2f} |",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
