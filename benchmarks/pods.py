"""The table of docs/pods.md: plans of named models for named pods, each compiled in a process of its own.

    python benchmarks/pods.py --out=plans --only h100

All solutions are as long as a row, with a prompt of 128 tokens. Plans that lie in the folder already are not made
again.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from o1p_jax.runtime.entry import main
from o1p_jax.runtime.progress import track
from o1p_jax.stages import cli

_MODELS = {
    "1.5B": "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
    "7B": "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
    "8B": "Qwen/Qwen3-8B",
    "32B": "Qwen/QwQ-32B",
    "30B-A3B": "Qwen/Qwen3-30B-A3B",
}
_PLANS = [
    # model, topology, mesh, tokens a row, rows
    ("1.5B", "v5e:2x2", "fsdp:4", 8192, 4),
    ("1.5B", "v5e:4x4", "fsdp:16", 8192, 16),
    ("1.5B", "v5p:2x2x1", "fsdp:4", 32768, 4),
    ("1.5B", "v6e:2x2", "fsdp:4", 16384, 4),
    ("1.5B", "7x:2x2x1", "fsdp:8", 16384, 8),
    ("1.5B", "h100:1x8", "fsdp:8", 8192, 8),
    ("7B", "v5e:8x8", "fsdp:64", 8192, 64),
    ("7B", "v5e:16x16", "fsdp:256", 8192, 256),
    ("7B", "v5p:2x2x1", "fsdp:4", 8192, 4),
    ("7B", "v5p:2x2x2", "fsdp:8", 8192, 8),
    ("7B", "v5p:2x2x4", "fsdp:16", 8192, 16),
    ("7B", "v5p:2x4x4", "fsdp:32", 8192, 32),
    ("7B", "v5p:4x4x4", "fsdp:64", 8192, 64),
    ("7B", "v5p:4x4x8", "fsdp:128", 8192, 128),
    ("7B", "v5p:4x8x8", "fsdp:256", 8192, 256),
    ("7B", "v5p:8x8x8", "fsdp:512", 8192, 512),
    ("7B", "v5p:4x4x4", "fsdp:32,context:2", 32768, 32),
    ("7B", "v6e:4x4", "fsdp:16", 8192, 16),
    ("7B", "7x:2x2x2", "fsdp:16", 8192, 16),
    ("7B", "h100:1x8", "fsdp:8", 8192, 8),
    ("7B", "h100:8x8", "fsdp:64", 8192, 64),
    ("7B", "h100:8x8", "fsdp:32,context:2", 32768, 32),
    ("7B", "h100:32x8", "fsdp:256", 8192, 256),
    ("8B", "v5e:8x8", "fsdp:64", 16384, 64),
    ("8B", "v5p:2x2x4", "fsdp:16", 32768, 16),
    ("8B", "v6e:4x4", "fsdp:16", 16384, 16),
    ("8B", "7x:2x2x2", "fsdp:16", 16384, 16),
    ("8B", "h100:1x8", "fsdp:8", 16384, 8),
    ("8B", "h100:8x8", "fsdp:64", 16384, 64),
    ("32B", "v5e:16x16", "fsdp:128,tensor:2", 8192, 128),
    ("32B", "v5p:4x4x4", "fsdp:64", 8192, 64),
    ("32B", "v5p:4x4x8", "fsdp:64,context:2", 32768, 64),
    ("32B", "v6e:8x8", "fsdp:64", 8192, 64),
    ("32B", "v6e:16x16", "fsdp:128,context:2", 32768, 128),
    ("32B", "7x:4x4x4", "fsdp:128", 8192, 128),
    ("32B", "h100:8x8", "fsdp:64", 8192, 64),
    ("32B", "h100:32x8", "fsdp:128,context:2", 32768, 128),
    ("30B-A3B", "v5e:16x16", "fsdp:128,expert:2", 8192, 256),
    ("30B-A3B", "v5p:4x4x4", "fsdp:8,expert:8", 8192, 64),
    ("30B-A3B", "v6e:8x8", "fsdp:32,expert:2", 16384, 64),
    ("30B-A3B", "7x:4x4x4", "fsdp:64,expert:2", 8192, 128),
    ("30B-A3B", "h100:8x8", "fsdp:8,expert:8", 8192, 64),
    ("30B-A3B", "h100:32x8", "fsdp:32,expert:8", 16384, 256),
]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    out: str
    """Folder of the plans' JSON files."""
    only: str = ""
    """Make only those whose topology begins so."""


def command(argv: list[str]) -> None:
    args = cli.parse(Arguments, argv)
    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    launch = Path(__file__).parents[1] / "launch" / "plan.py"
    config = Path(__file__).parents[1] / "configs" / "r1_distill_qwen_7b.py"
    with track("plans", total=len(_PLANS), unit="plans") as bar:
        for model, topology, mesh, length, rows in _PLANS:
            file = folder / f"{model}_{topology}_{mesh}_{length}.json".replace(":", "-").replace(",", "_")
            if topology.startswith(args.only) and not file.exists():
                done = subprocess.run(
                    [
                        sys.executable, launch, f"--config={config}", f"--model={_MODELS[model]}",
                        f"--topology={topology}", f"--mesh={mesh}", f"--batch.row_length={length}",
                        "--batch.too_long=drop", f"--sampling.max_tokens={length - 128}",
                        f"--solution_tokens={length - 128}", f"--batch.sequences={rows}", "--problems_count=512",
                        f"--json={file}",
                    ],
                    capture_output=True, text=True, check=False,
                )  # fmt: skip
                if done.returncode:
                    print(f"{file.name}: {done.stderr.splitlines()[-1]}", file=sys.stderr)
            bar.advance()
    print("| model | pod | mesh | tokens a row x rows | parameters and moments | peak | at best | forecast | MFU |")
    print("| --- | --- | --- | --- | ---: | ---: | --- | ---: | ---: |")
    for file in sorted(folder.glob("*.json")):
        print(_row(json.loads(file.read_text())))


def _row(plan: dict) -> str:
    memory, gib = plan["memory"], 2**30
    mesh = ",".join(f"{axis}:{n}" for axis, n in plan["mesh"].items() if n > 1)
    [(rows, length)], model = plan["shapes"], plan["model"].split("/")[1]
    return (
        f"| {model} | {plan['topology']} ({plan['chips']}) | {mesh} | {length:,} x {rows} "
        f"| {(memory['parameters'] + memory['moments']) / gib:.2f} GiB | {memory['peak'] / gib:.1f} of "
        f"{memory['available'] / gib:.0f} GiB | {plan['least_seconds']:.2f} s, {plan['bound']} "
        f"| {plan['seconds']:.2f} s | {plan['mfu']:.0%} to {plan['most_mfu']:.0%} |"
    )


if __name__ == "__main__":
    main(command)
