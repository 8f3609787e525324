"""The preflight refuses what would fail hours later, within seconds and with nothing written."""

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from o1p_jax.config.tree import EvaluationConfig, RunConfig, SamplingConfig
from o1p_jax.data.problems import load_problems, training_problems
from o1p_jax.data.prompts import PromptSet, make_prompts
from o1p_jax.data.records import Problem
from o1p_jax.devices import processes
from o1p_jax.devices.axes import check_divides
from o1p_jax.devices.mesh import check_mesh, devices_for, gpus_of_job, set_up_devices
from o1p_jax.evaluation.table import Notes
from o1p_jax.grading.grader import Grader
from o1p_jax.methods import method_of
from o1p_jax.methods.own_reward import check_reward
from o1p_jax.models.hf.hub import check_config_tells_all
from o1p_jax.models.hf.load import check_weights
from o1p_jax.models.source import SourceModel, find_model
from o1p_jax.runtime.apart import check_apart
from o1p_jax.runtime.children import check_semaphores
from o1p_jax.runtime.determinism import fix_bits
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.fields import check
from o1p_jax.runtime.files import public_path
from o1p_jax.stages import identity, where
from o1p_jax.stages.memory import check_memory
from o1p_jax.stages.overlap import notes_on_problems
from o1p_jax.stages.pool import brings_problems, check_imported, check_pool, imported_pool, pool_revision
from o1p_jax.stages.run_folder import kept_revision, make_room
from o1p_jax.stages.where import apart


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The model and problems that a job works on, found once and handed down to its stages."""

    source: SourceModel
    train: PromptSet | None
    """The training problems; None where an imported pool brings its own, or none are needed."""
    tests: dict[str, PromptSet]
    """The test problems, by the names that the report shows the sets under; empty where none are needed."""
    notes: Notes
    """What is to be said of each test set under its table."""


def preflight(
    cfg: RunConfig, parts: Iterable[str], restart: str | None = None, *, pool_alone: bool = False, training: bool = True
) -> Inputs:
    """Finds the model and the problems ('train', 'test' in `parts`) of a run, and checks that they fit what `cfg` says.

    Raises BadInput for what would fail later: model, mesh, problems, prompts, sampler, and work in the run's folder
    that the configuration has no use for; `restart` names the work that may be set aside. With `pool_alone` the run's
    folder is not looked at; without `training` the mesh counts only where the embedded sampler needs it.
    """
    if cfg.compute.deterministic:
        fix_bits()
    if "test" in parts:
        where.check_servers(cfg, models=2)
    # The files of problems first: to read them takes a second, to read a model's weights minutes.
    train = None
    if "train" in parts and not brings_problems(cfg):
        train = training_problems(cfg.problems)
    tests = load_tests(cfg, cfg.problems.test) if "test" in parts else {}
    revision = cfg.revision if pool_alone else kept_revision(cfg)
    source = find_model(cfg.model, pool_revision(cfg) if revision == cfg.revision else revision)
    for flag, folder in (("run", None if pool_alone else cfg.run), ("pool", cfg.pool)):
        if folder is not None:
            check_apart(flag, folder, source.folder, f"model={cfg.model}")
    check_model(cfg, source, cfg.sampling.sampler, training=training)
    check_functions(cfg)
    imported = imported_pool(cfg, source)
    if imported is not None:
        check_imported(cfg, imported)
    elif cfg.pool is not None:
        cfg.check_samples()
    made, wanted = None, None
    if train is not None:
        made = make_prompts(source.folder, train, cfg.problems)
        check_context(source, made, cfg.sampling)
        wanted = identity.of_samples(cfg, source, made)
        if not cfg.splits_problems:  # else each round looks for its own part of the problems
            check_pool(cfg, wanted)
    made_tests = {name: make_prompts(source.folder, of_set, cfg.problems) for name, of_set in tests.items()}
    for of_set in made_tests.values():
        check_context(source, of_set, cfg.evaluation)
    samples = wanted if imported is None else imported.identity
    if samples is not None and not pool_alone:
        make_room(cfg, wanted, identity.of_training(cfg, source, samples), restart)
    texts = [p.problem for p in made.problems] if made else imported.texts() if imported else []
    notes = notes_on_problems(cfg.problems, texts, {name: of_set.problems for name, of_set in made_tests.items()})
    return Inputs(source=source, train=made, tests=made_tests, notes=notes)


def load_tests(cfg: RunConfig, specs: Sequence[str]) -> dict[str, list[Problem]]:
    """Returns the test problems that `specs` name, by the names that a report shows the sets under."""
    names = labels(specs, [public_path(spec) for spec in specs])
    loaded = [load_problems(spec, cfg.problems, cfg.problems.limit_test) for spec in specs]
    return dict(zip(names, loaded, strict=True))


def labels(names: Sequence[str], short: Sequence[str]) -> list[str]:
    """Returns the `short` forms of the names; the whole name where another one has the same short form."""
    return [part if short.count(part) == 1 else name for name, part in zip(names, short, strict=True)]


def check_context(source: SourceModel, prompts: PromptSet, draw: SamplingConfig | EvaluationConfig) -> None:
    """Raises BadInput where the longest prompt and the longest solution of `draw` exceed the model's context."""
    longest, context = prompts.longest + draw.max_tokens, source.decoder.context
    check(
        draw,
        "max_tokens",
        longest <= context,
        f"with the longest prompt of {prompts.problems[0].source} ({prompts.longest} tokens) that makes {longest} "
        f"tokens, and the context of model={source.name} has {context}; lower it by {longest - context}",
    )


def check_functions(cfg: RunConfig) -> None:
    """Raises BadInput where a user's own reward or grader can't be loaded or fails on a trial, or no grader can run."""
    check_semaphores()
    check_reward(method_of(cfg.method), cfg.method)
    with Grader(workers=1, timeout_s=cfg.grading.timeout_s, own=cfg.grading.grader) as grader:
        grader.check()


def check_model(cfg: RunConfig, source: SourceModel, sampler: str, *, training: bool) -> None:
    """Raises BadInput where the model's files, the `sampler`, the mesh, the memory and the trained layers do not fit.

    The mesh counts only in `training` and for the embedded sampler.
    """
    check_weights(source.folder, source.decoder)
    if sampler != "jax":
        check_config_tells_all(source.folder, source.decoder)
    if training or sampler == "jax":
        sizes = source.decoder.axis_sizes()
        check_divides(cfg.mesh, sizes)
        check_divides(cfg.mesh, sizes, _devices(cfg))  # once more, because -1 in a mesh depends on the devices
        if not apart(cfg):  # else to ask the devices would take their memory
            check_memory(cfg, source.decoder)
    wanted, layers = cfg.compute.trainable_layers, source.decoder.layers
    if wanted is not None and wanted > layers:
        raise BadInput(f"compute.trainable_layers={wanted}: the model has {layers} layers")
    if apart(cfg) and cfg.sampling.vllm.python is None and not importlib.util.find_spec("vllm"):
        raise BadInput(
            "sampling.sampler=vllm: vLLM is not installed here; install it (docs/install.md), or name the "
            "interpreter that has it as sampling.vllm.python"
        )


def _devices(cfg: RunConfig) -> int:
    """Returns the number of devices that there are for the mesh; raises BadInput where they are too few."""
    set_up_devices(cfg.mesh)
    if not apart(cfg):
        return devices_for(cfg.mesh)
    if (gpus := gpus_of_job()) is not None:
        check_mesh(cfg.mesh, gpus, "gpu")
        return gpus
    return processes.count()
