"""The module opens the pool that a configuration asks for, or makes it for the sampler to fill."""

from pathlib import Path

from o1p_jax.config.tree import EvaluationConfig, RunConfig, SamplingConfig
from o1p_jax.data.pool import Pool
from o1p_jax.data.prompts import PromptSet
from o1p_jax.models.source import SourceModel
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.progress import say
from o1p_jax.stages import identity
from o1p_jax.stages.identity import Identity


def pool_path(cfg: RunConfig) -> Path:
    """Returns the folder of the training problems' samples: the pool that `cfg` names, or one in the run's folder."""
    return Path(cfg.run) / "pool" if cfg.pool is None else Path(cfg.pool)


def brings_problems(cfg: RunConfig) -> bool:
    """Returns whether the pool that `cfg` names was imported, so that it has problems of its own."""
    path = pool_path(cfg)
    return Pool.lies_in(path) and Pool(path).facts["origin"] == "imported"


def imported_pool(cfg: RunConfig, source: SourceModel) -> Pool | None:
    """Returns the pool that `cfg` names, if its samples were made elsewhere, else None.

    An imported pool brings its own problems and parameters. Raises BadInput where it was imported for another model.
    """
    if not brings_problems(cfg):
        return None
    path = pool_path(cfg)
    pool = Pool(path)
    if pool.identity["model_sha256"] != source.digest:
        raise BadInput(
            f"pool={path}: its samples were imported as those of {pool.facts['model']}, whose weights are not those of "
            f"model={source.name}; name the model that made them"
        )
    if not pool.complete:
        raise BadInput(f"pool={path}: imported, and {len(pool.samples.missing_shards())} files are gone; import again")
    return pool


def pool_revision(cfg: RunConfig) -> str | None:
    """Returns the commit of the hub's model that the samples of the pool were drawn from, or `cfg.revision`.

    A pool knows the commit only where it was made for the model and revision that `cfg` asks for now.
    """
    path = pool_path(cfg)
    if not Pool.lies_in(path):
        return cfg.revision
    facts = Pool(path).facts
    same = (facts.get("model"), facts.get("revision")) == (cfg.model, cfg.revision)
    return facts.get("commit") or cfg.revision if same else cfg.revision


def check_imported(cfg: RunConfig, pool: Pool) -> None:
    """Says which settings an imported pool takes the place of.

    Raises BadInput where its prompts are too long, or no problem has as many samples as the method needs.
    """
    found, longest = pool.facts["imported"], cfg.problems.max_prompt_tokens
    if found["longest_prompt"] > longest:
        raise BadInput(
            f"pool={pool.path}: its longest prompt has {found['longest_prompt']} tokens; raise "
            f"problems.max_prompt_tokens={longest}, or import without it"
        )
    fewest, most = found["fewest_samples"], found["most_samples"]
    if most < cfg.method.fewest_samples:
        raise BadInput(
            f"pool={pool.path}: its problems have one sample each, and method={cfg.method.name} compares a problem's "
            "samples with one another; import more of them"
        )
    say(
        f"pool={pool.path}: imported; it brings its own {pool.facts['problems']} problems with {fewest} to {most} "
        "samples each, so that problems.train and limit_train, and what sampling.* says of drawing, do not count for "
        "training"
    )
    if fewest < cfg.method.m:
        say(f"method.m={cfg.method.m}: a problem that has fewer samples is trained on with those that it has")


def check_pool(cfg: RunConfig, wanted: Identity) -> None:
    """Raises BadInput where the pool that `cfg` names has samples that were made otherwise than `wanted` says."""
    if cfg.pool is not None and Pool.lies_in(Path(cfg.pool)):
        Pool(cfg.pool).check(wanted)


def training_pool(cfg: RunConfig, source: SourceModel, prompts: PromptSet) -> Pool:
    """Returns the pool of the training problems' samples, which is empty where it is new."""
    wanted = identity.of_samples(cfg, source, prompts)
    return _pool(pool_path(cfg), cfg, source, prompts, wanted, cfg.sampling, cfg.sampling_seed, logprobs=True)


def evaluation_pool(cfg: RunConfig, source: SourceModel, prompts: PromptSet, name: str, folder: Path) -> Pool:
    """Returns the pool of a model's answers to one set of test problems: a folder of its own in `folder`."""
    wanted = identity.of_evaluation(cfg, source, prompts)
    path = folder / f"{name}-{identity.key(wanted)[:12]}"
    return _pool(path, cfg, source, prompts, wanted, cfg.evaluation, cfg.seed, logprobs=False)


def _pool(
    path: Path,
    cfg: RunConfig,
    source: SourceModel,
    prompts: PromptSet,
    wanted: Identity,
    draw: SamplingConfig | EvaluationConfig,
    seed: int,
    *,
    logprobs: bool,
) -> Pool:
    names = ("samples_per_problem", "temperature", "top_p", "top_k", "max_tokens")
    return Pool.create(
        path,
        identity=wanted,
        facts={
            "origin": "sampled",
            "model": source.name,
            "commit": source.commit,
            "date": cfg.problems.date,
            "revision": cfg.revision,
            "draw": {name: getattr(draw, name) for name in names}
            | {"seed": seed, "stop_ids": prompts.stop_ids, "logprobs": logprobs},
        },
        problems=prompts.problems,
        prompts=prompts.prompt_ids,
        inside_thought=prompts.inside_thought,
        problems_per_shard=cfg.sampling.problems_per_shard,
    )
