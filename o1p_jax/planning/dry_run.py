"""A dry run shows what a run would begin with (prompts, a graded example, shapes, memory), and writes nothing."""

import math
from collections.abc import Iterator
from pathlib import Path

from o1p_jax.config.chips import GIB
from o1p_jax.config.mesh import mesh_text, parse_mesh
from o1p_jax.config.tree import FIRST, RunConfig
from o1p_jax.data.pool import Pool
from o1p_jax.data.problems import training_problems
from o1p_jax.data.prompts import Prompter, make_prompts
from o1p_jax.devices.axes import check_divides
from o1p_jax.grading.grader import Grader
from o1p_jax.models.hf.hub import load_config, resolve_model
from o1p_jax.models.sizes import model_sizes
from o1p_jax.stages.pool import brings_problems, pool_path
from o1p_jax.stages.preflight import check_functions
from o1p_jax.stages.run_folder import dated
from o1p_jax.training.memory import device_bytes

_SHOWN = 3


def dry_run(cfg: RunConfig) -> None:
    """Prints what a run of `cfg` would begin with. The model's weights are neither fetched nor looked at.

    Raises BadInput for problems, prompts, a mesh, a reward or a grader that the run itself would refuse.
    """
    for line in lines(cfg):
        print(line)


def lines(whole: RunConfig) -> Iterator[str]:
    """Yields the lines of `dry_run`; of several rounds, those of the first."""
    cfg = whole.of_round(1)
    folder = resolve_model(cfg.model, cfg.revision, weights=False)
    model = load_config(folder)
    check_divides(cfg.mesh, model.axis_sizes())
    check_functions(cfg)
    yield f"model     {cfg.model}: {model.layers} layers, {model_sizes(model).total:,} parameters (weights not read)"

    problems = _problems(cfg, folder, Path(whole.run))
    decode = Prompter(folder).decode
    lengths = [len(ids) for _, ids in problems]
    yield f"problems  {len(problems):,}, with prompts of {min(lengths):,} to {max(lengths):,} tokens"
    for number, (gold, ids) in enumerate(problems[:_SHOWN], 1):
        yield f"--- prompt {number}, {len(ids)} tokens, gold answer {gold!r}; the solution follows its last character"
        yield decode(ids, special=True)
    yield "---"

    gold, _ = problems[0]
    solution = rf"So the answer is \boxed{{{gold}}}."
    with Grader(workers=1, timeout_s=cfg.grading.timeout_s, own=cfg.grading.grader) as grader:
        [grade] = grader.grade_many([(solution, gold)])
    found = "no final answer found" if grade.pred is None else f"final answer {grade.pred!r}"
    yield f"graded    {solution!r}, made up for the first problem: {found}, {grade.status}"

    draw, batch = cfg.sampling, cfg.batch
    yield (
        f"sampling  {draw.samples_per_problem} solutions a problem by {draw.sampler}, of up to {draw.max_tokens:,} "
        f"tokens: {len(problems) * draw.samples_per_problem:,} solutions"
    )
    kept = len(problems) * min(cfg.method.m, draw.samples_per_problem)
    yield (
        f"shapes    a step: {batch.sequences} solutions in rows of up to {batch.row_length:,} tokens; the solutions' "
        "lengths will decide on the rows"
    )
    if whole.rounds > 1:
        of = "the model before all rounds" if cfg.reference == FIRST else "the model of the round before"
        on = f" and its problems, one of {whole.rounds} parts of them" if whole.splits_problems else ""
        yield f"rounds    up to {whole.rounds}, each of them as told here but for its model{on}; the reference is {of}"
    optim, of_epochs = cfg.optim, cfg.optim.epochs * math.ceil(kept / batch.sequences)
    yield (
        (f"steps     {optim.steps:,}: " if optim.steps else f"steps     up to {of_epochs:,}: ")
        + f"{len(problems):,} problems x m={cfg.method.m}, {batch.sequences} solutions a step"
        + ("" if optim.steps else f", epochs={optim.epochs}")
    )
    mesh = parse_mesh(cfg.mesh)
    tokens = batch.tokens_per_device or math.ceil(batch.row_length / mesh["context"])
    yield (
        f"memory    about {device_bytes(model, cfg.compute, mesh, tokens) / GIB:.2f} GiB a device of the mesh "
        f"{mesh_text(mesh)} for {tokens:,} tokens at a time, by formula; o1p plan compiles the step and tells exactly"
    )
    yield "dry run: nothing was sampled, trained or written"


def _problems(cfg: RunConfig, folder: Path, run: Path) -> list[tuple[str, list[int]]]:
    """Returns the gold answer and prompt's token ids of each training problem; an imported pool brings its own."""
    if brings_problems(cfg):
        rows = Pool(pool_path(cfg)).problems.read(["answer", "prompt_ids"]).to_pylist()
        return [(row["answer"], row["prompt_ids"]) for row in rows]
    cfg = dated(cfg, [pool_path(cfg)], run)
    problems = training_problems(cfg.problems)
    read = make_prompts(folder, problems, cfg.problems)
    return [(p.answer, list(read.prompt_ids[p.problem_id])) for p in read.problems]
