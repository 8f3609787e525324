"""Compares methods: trains each from one pool of samples, by equally many steps, and makes the table, plots and page.

    o1p compare
    o1p compare --seeds 0 1 2 --out=experiments/mine --methods o1_pruner "dler:m=8,limit=100|140" dpo_shortest

A method is NAME, or NAME:KNOB=VALUE,... with flags of its own (`m=8` is --method.m=8, optim.learning_rate=1e-4 is a
flag of that name, as is rounds=3). A method has one round unless it, or the command, says otherwise. Where a knob has
several values, VALUE|VALUE, the validation problems choose one. fast_prompt is the model before training, asked to be
quick. All other flags are the runs'. Any number of processes, started by the same command, share the work; what is
there is not done again.
"""

import itertools
import re
from dataclasses import dataclass, replace
from pathlib import Path

from o1p_jax.methods import find
from o1p_jax.methods.fast_prompt import FAST_PROMPT
from o1p_jax.runtime.errors import BadInput
from o1p_jax.runtime.progress import begin
from o1p_jax.stages import cli
from o1p_jax.stages.variants import Variant

METHODS = (
    "o1_pruner:reward_low=-2|-3",
    "o1_pruner:rounds=2,fresh_problems=True,reward_low=-3,optim.steps=64",
    "o1_pruner:rounds=3,reward_low=-3",
    "o1_pruner:length_term=correct_only,reward_low=-6",
    "fast_prompt",
    "sft_shortest:optim.learning_rate=5e-5|2e-4",
    "dpo_shortest:optim.learning_rate=2e-5|1e-4",
    "tlmre:m=8,alpha=0.4",
    "kimi_k15:m=8",
    "shorter_better:m=8,beta=0.005",
    "dler:m=8,limit=100|140",
    "laser_d:m=8",
    "grpo_lead:m=8",
    "jet:m=8",
    "acoer:m=8",
)
"""What is compared unless a command says otherwise: O1-Pruner in four forms, its baselines, and rivals.

Limits, and what a token costs, are for the embedded model's lengths.
"""
_DEFAULTS = ("--rounds=1", "--fresh_problems=False")
"""Flags of a run that stand in an experiment where neither the command nor a method says otherwise."""
_OWN = ("run", "pool", "seed", "method", "method.name", "optim.steps")
"""Flags of a run that the experiment sets itself."""


@dataclass(frozen=True, kw_only=True)
class Arguments(cli.RunFlags):
    methods: tuple[str, ...] = METHODS
    """What is compared, each NAME or NAME:KNOB=VALUE|VALUE,KNOB=VALUE."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of samples, choice and order; each has a pool of its own."""
    steps: int = 128
    """Number of steps that each method trains for."""
    validation: str = "embedded:validation"
    """The problem set that chooses among a knob's values."""
    out: Path = Path("experiments/embedded")
    """The folder of the experiment."""


def command(argv: list[str]) -> None:
    # Each method brings its own m; that of the configuration must not be in the way of --sampling.samples_per_problem.
    args, base = cli.parse_run(Arguments, [*_DEFAULTS, *argv, "--method.m=1"], __doc__)
    for name in _OWN:
        if cli.take_flag(argv, name)[0] is not None:
            raise BadInput(f"--{name}: an experiment sets it itself; see --methods, --seeds, --steps and --out")
    if args.validation == Arguments.validation and not all(name.startswith("embedded:") for name in base.problems.test):
        raise BadInput("--validation: left out; name the problem set that chooses among the values of a knob")
    if args.validation in base.problems.test:
        raise BadInput(f"--validation={args.validation}: is among problems.test; what chooses must not be reported")
    found = [variant for spec in args.methods for variant in variants(spec)]
    labels = [variant.label for variant, _ in found]
    if repeated := sorted({label for label in labels if labels.count(label) > 1}):
        raise BadInput(f"--methods: {repeated[0]} stands there more than once")
    if not any(variant.trained for variant, _ in found):
        raise BadInput("--methods: none of them is trained; name one that is")
    begin("experiment", str(args.out))
    configs = {}
    for seed, (variant, flags) in itertools.product(dict.fromkeys(args.seeds), found):
        folder = args.out / f"seed-{seed}"
        own = [f"--seed={seed}", f"--pool={folder / 'pool'}", f"--run={folder / folder_name(variant.label)}"]
        _, cfg = cli.parse_run(Arguments, [*_DEFAULTS, *argv, *own, f"--optim.steps={args.steps}", *flags])
        if not variant.trained:
            asked = f"{cfg.problems.user_template}\n{FAST_PROMPT}"
            cfg = replace(cfg, problems=replace(cfg.problems, user_template=asked))
        if cfg.splits_problems:  # the shared pool holds all problems
            cfg = replace(cfg, pool=None)
        configs[seed, variant.label] = cfg
    from o1p_jax.stages.experiment import run_experiment

    run_experiment(args.out, args.validation, [variant for variant, _ in found], configs)


def variants(spec: str) -> list[tuple[Variant, list[str]]]:
    """Returns the variants that NAME:KNOB=VALUE|VALUE,... stands for, each with the flags that make it."""
    name, _, rest = spec.partition(":")
    if name == "fast_prompt" and not rest:
        return [(Variant(label=name, family=name, value="", trained=False), [])]
    find(name)
    knobs: list[tuple[str, list[str]]] = []
    for part in filter(None, rest.split(",")):
        knob, equals, values = part.partition("=")
        if not equals or not all(values.split("|")):
            raise BadInput(f"--methods={spec}: {part} is not KNOB=VALUE or KNOB=VALUE|VALUE")
        knobs.append((knob, values.split("|")))
    family = ",".join([name, *(k if len(v) > 1 else f"{k}={v[0]}" for k, v in knobs)]).replace(",", ":", 1)
    found = []
    for chosen in itertools.product(*(values for _, values in knobs)):
        given = [f"{knob}={value}" for (knob, _), value in zip(knobs, chosen, strict=True)]
        value = ", ".join(text for text, (_, of_knob) in zip(given, knobs, strict=True) if len(of_knob) > 1)
        label = ",".join([name, *given]).replace(",", ":", 1)
        flags = [f"--{text}" if _is_flag(text.partition("=")[0]) else f"--method.{text}" for text in given]
        found.append((Variant(label=label, family=family, value=value, trained=True), [f"--method={name}", *flags]))
    return found


def _is_flag(knob: str) -> bool:
    return "." in knob or knob in ("rounds", "reference", "fresh_problems")


def folder_name(label: str) -> str:
    """Returns a variant's label as the name of a folder."""
    return re.sub(r"[^\w.=-]+", "-", label)
