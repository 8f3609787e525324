"""Solutions made up for the embedded model's own tokenizer, as other programs would write them, and pools of them."""

import json
from pathlib import Path

from o1p_jax.config.imports import ImportConfig
from o1p_jax.config.tree import RunConfig
from o1p_jax.data.embedded import embedded_problems
from o1p_jax.data.pool import Pool
from o1p_jax.data.prompts import Prompter
from o1p_jax.methods.o1_pruner import O1PrunerParams
from o1p_jax.models.hf.hub import resolve_model
from o1p_jax.stages.import_pool import import_pool

ROOT = Path(__file__).parents[2]
PROMPTER = Prompter(resolve_model("embedded"))
PROBLEMS = embedded_problems("train", 5)
END = PROMPTER.eos_ids[0]
EXPORTED = ("problem_id", "problem", "answer", "level", "source", "split", "prompt_ids", "sample_idx", "seed",
            "completion", "completion_ids", "finish_reason")  # fmt: skip


def ids_of(text: str) -> list[int]:
    return PROMPTER._tokenizer(text, add_special_tokens=False)["input_ids"]


def row(number: int, k: int, **changes) -> dict:
    """A solution of a problem, right for even k; some were cut off."""
    problem = PROBLEMS[number]
    ids = ids_of(f"{'1 ' * (number + k)}\\boxed{{{problem.answer if k % 2 == 0 else '1'}}}")
    ids += [END] if k != 3 else []
    return {
        "problem": problem.problem, "answer": problem.answer, "level": problem.level, "source": problem.source,
        "split": problem.split, "prompt_ids": list(PROMPTER.prompt_ids(problem)), "seed": 10 * number + k,
        "completion": PROMPTER.decode(ids), "completion_ids": ids, "finish_reason": "length" if k == 3 else "stop",
    } | changes  # fmt: skip


def rows(samples: int = 4) -> list[dict]:
    """Round by round over the problems, as a trainer that goes through them several times would write them."""
    return [row(number, k) for k in range(samples) for number in range(len(PROBLEMS))]


def write(path: Path, table: list[dict]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in table))
    return path


def bring(folder: Path, table: list[dict], name: str = "pool", **fields) -> Pool:
    if table:
        fields["rollouts"] = (str(write(folder / f"{name}.jsonl", table)),)
    config = {"problems_per_shard": 2, "model": "embedded", "pool": str(folder / name)}
    return import_pool(ImportConfig(**config | fields))


def run_config(pool: Pool, **fields) -> RunConfig:
    return RunConfig(pool=str(pool.path), method=O1PrunerParams(m=4), **fields)


def contents(pool: Pool) -> list[dict]:
    return pool.read(EXPORTED).to_pylist()
