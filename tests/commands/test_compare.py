import pytest

from o1p_jax.commands.compare import METHODS, command, folder_name, variants
from o1p_jax.methods import METHODS as KNOWN
from o1p_jax.runtime.errors import BadInput
from o1p_jax.stages import experiment


def test_a_method_with_values_of_knobs_is_a_variant_each():
    found = variants("dler:m=8,limit=100|140,optim.learning_rate=1e-4|1e-5")
    assert len(found) == 4 and {v.family for v, _ in found} == {"dler:m=8,limit,optim.learning_rate"}
    variant, flags = found[1]
    assert variant.label == "dler:m=8,limit=100,optim.learning_rate=1e-5" and variant.trained
    assert variant.value == "limit=100, optim.learning_rate=1e-5"
    assert flags == ["--method=dler", "--method.m=8", "--method.limit=100", "--optim.learning_rate=1e-5"]
    assert folder_name(variant.label) == "dler-m=8-limit=100-optim.learning_rate=1e-5"


def test_a_method_by_its_name_and_the_fast_prompt():
    [(variant, flags)] = variants("jet")
    assert (variant.label, variant.family, variant.value, flags) == ("jet", "jet", "", ["--method=jet"])
    [(variant, flags)] = variants("fast_prompt")
    assert not variant.trained and not flags


def test_what_is_compared_by_default_has_folders_of_its_own():
    found = [variant for spec in METHODS for variant, _ in variants(spec)]
    assert len({folder_name(v.label) for v in found}) == len(found)
    rivals = {spec.partition(":")[0] for spec in METHODS} - {"o1_pruner", "fast_prompt", "sft_shortest", "dpo_shortest"}
    assert len(rivals) >= 8 and rivals <= KNOWN.keys()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--methods", "dlr"], "method=dlr: no such method; did you mean dler"),
        (["--methods", "dler:limit"], "limit is not KNOB=VALUE"),
        (["--methods", "dler:limit=100|"], r"limit=100\| is not KNOB=VALUE"),
        (["--methods", "dler:limt=100"], "--method.limt: no such flag; did you mean --method.limit"),
        (["--methods", "dler:limit=x"], "method.limit"),
        (["--methods", "jet", "jet"], "--methods: jet stands there more than once"),
        (["--methods", "fast_prompt"], "none of them is trained"),
        (["--method=jet"], "--method: an experiment sets it itself"),
        (["--run=runs/x"], "--run: an experiment sets it itself"),
        (["--validation=embedded:test"], "is among problems.test"),
        (["--problems.test=mine.jsonl"], "--validation: left out"),
    ],
)
def test_mistakes_are_told_before_anything_is_done(argv, message, tmp_path):
    with pytest.raises(BadInput, match=message):
        command([*argv, f"--out={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


def test_a_method_has_one_round_from_the_shared_pool_unless_it_says_otherwise(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(experiment, "run_experiment", lambda *of: asked.append(of))
    command([f"--out={tmp_path / 'out'}", "--methods", "o1_pruner", "o1_pruner:rounds=2,fresh_problems=True"])
    [(_, _, _, configs)] = asked
    found = {label: (cfg.rounds, cfg.splits_problems, cfg.pool is None) for (_, label), cfg in configs.items()}
    assert found == {"o1_pruner": (1, False, False), "o1_pruner:rounds=2,fresh_problems=True": (2, True, True)}
    budget = experiment._other_budget(configs[0, "o1_pruner"], configs[0, "o1_pruner:rounds=2,fresh_problems=True"])
    assert budget == "up to 2 rounds of 128 steps, each from samples of its own part of the problems"
