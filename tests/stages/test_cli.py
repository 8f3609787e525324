from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from o1p_jax.config.saved import save_config
from o1p_jax.config.tree import ExportConfig, RunConfig
from o1p_jax.methods import METHODS
from o1p_jax.methods.tlmre import TLMREParams
from o1p_jax.runtime.errors import BadInput
from o1p_jax.stages import cli

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_loads_and_holds_its_command(path):
    assert isinstance(cli.load_config(path), RunConfig)
    assert "python launch/" in path.read_text().split('"""')[1]


def test_flags_override_fields():
    cfg = cli.parse_run_config(["--mesh=4x2", "--optim.learning_rate=1e-6", "--compute.remat=full", "--seed", "7"])
    assert (cfg.mesh, cfg.optim.learning_rate, cfg.compute.remat, cfg.seed) == ("4x2", 1e-6, "full", 7)


def test_a_system_prompt_may_be_empty():
    """Some chat templates put in one of their own where none is given."""
    assert cli.parse_run_config(["--problems.system_prompt="]).problems.system_prompt == ""


def test_variables_of_the_chat_template_are_given_as_names_and_values(tmp_path):
    argv = ["--problems.template_kwargs", "enable_thinking", "False", "reasoning_effort", "low", "--mesh=4x2"]
    cfg = cli.parse_run_config(argv)
    assert cfg.problems.template_kwargs == {"enable_thinking": False, "reasoning_effort": "low"} and cfg.mesh == "4x2"
    save_config(tmp_path / "config.json", cfg, None)
    assert cli.load_config(tmp_path / "config.json") == cfg


def test_arguments_of_vllms_engine_are_given_as_names_and_values(tmp_path):
    argv = [
        "--sampling.vllm.engine_args",
        "gpu_memory_utilization",
        "0.8",
        "max_num_seqs",
        "1",
        "enforce_eager",
        "True",
    ]
    cfg = cli.parse_run_config(argv)
    given = cfg.sampling.vllm.engine_args
    assert given == {"gpu_memory_utilization": 0.8, "max_num_seqs": 1, "enforce_eager": True}
    assert list(map(type, given.values())) == [float, int, bool]
    save_config(tmp_path / "config.json", cfg, None)
    assert cli.load_config(tmp_path / "config.json") == cfg


def test_the_method_is_chosen_by_name_and_has_flags_of_its_own():
    embedded = cli.parse_run_config([]).method
    for flag in ("--method=o1_pruner", "--method.name=o1_pruner"):
        chosen = cli.parse_run_config(["--method.lam=3", flag]).method
        assert chosen == replace(embedded, lam=3.0)  # the config's own values stay


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_chosen_by_name_and_saved(name, tmp_path):
    cfg = cli.parse_run_config([f"--method={name}", "--method.m=3"])
    assert type(cfg.method) is METHODS[name].Params and cfg.method.m == 3
    save_config(tmp_path / "config.json", cfg, None)
    assert cli.load_config(tmp_path / "config.json") == cfg


def test_a_methods_own_flags_and_the_list_of_methods(capsys):
    assert cli.parse_run_config(["--method=tlmre", "--method.alpha=0.3"]).method == TLMREParams(alpha=0.3)
    with pytest.raises(BadInput, match=r"^--method\.alpha: no such flag"):
        cli.parse_run_config(["--method.alpha=0.3"])
    with pytest.raises(BadInput, match=r"^batch\.sequences=31: must be a multiple of 2: method=dast"):
        cli.parse_run_config(["--method=dast", "--batch.sequences=31"])
    with pytest.raises(SystemExit):
        cli.parse_run_config(["--method=tlmre", "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert ", ".join(METHODS) in said and "--method.alpha" in said


def test_a_part_of_the_configuration_among_a_commands_flags():
    @dataclass(frozen=True, kw_only=True)
    class Arguments:
        out: str
        export: ExportConfig = field(default_factory=ExportConfig)

    assert cli.parse(Arguments, ["--out=x"]).export.dtype is None
    assert cli.parse(Arguments, ["--out=x", "--export.dtype=float32"]).export.dtype == "float32"
    for wrong in ("--export.dtype=int8", "--export.type=float32"):
        with pytest.raises(BadInput, match="export"):
            cli.parse(Arguments, ["--out=x", wrong])


def test_a_run_folders_config_is_a_config(tmp_path):
    save_config(tmp_path / "config.json", RunConfig(seed=5), None)
    assert cli.parse_run_config([f"--config={tmp_path / 'config.json'}", "--mesh=1x1"]) == RunConfig(seed=5, mesh="1x1")
    save_config(tmp_path / "config.json", RunConfig(model="org/name", revision="main"), "c" * 40)
    found = cli.parse_run_config([f"--config={tmp_path / 'config.json'}", "--run=another"])
    assert (found.run, found.model, found.revision) == ("another", "org/name", "c" * 40)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_configs_are_known_by_name_wherever_the_command_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.parse_run_config([f"--config={path.stem}"]) == cli.load_config(path)


@dataclass(frozen=True, kw_only=True)
class Own(cli.RunFlags):
    problems: tuple[str, ...] = ()
    restart: str | None = None


def test_a_command_has_flags_of_its_own_beside_the_configs():
    """Their names may be those of the configuration's sections."""
    argv = ["--problems", "a", "b", "--problems.train=c", "--config=embedded", "--restart", "samples", "--seed=3"]
    own, cfg = cli.parse_run(Own, argv)
    assert (own.problems, own.restart, own.config) == (("a", "b"), "samples", "embedded")
    assert (cfg.problems.train, cfg.seed, cfg.optim) == ("c", 3, cli.load_config("embedded").optim)
    with pytest.raises(BadInput, match="did you mean --restart"):
        cli.parse_run(Own, ["--restrt=samples"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--optim.lerning_rate=1"], "did you mean --optim.learning_rate?"),
        (["--epsilon=0.1"], "did you mean --method.epsilon?"),
        (["--optim.learning_rate=fast"], "optim.learning_rate"),
        (["--optim.learning_rate=-1"], "optim.learning_rate=-1.0: must be positive"),
        (["--sampling.sampler=hf"], "'jax', 'vllm', 'server'"),
        (["--mesh=8by1"], "mesh=8by1"),
        (["--mesh"], "--mesh"),
        (["--method.m=99"], "method.m=99"),
        (["--method=o1_prunner"], "method=o1_prunner: no such method; did you mean o1_pruner?"),
        (["--methd=o1_pruner"], "did you mean --method?"),
        (["--method.lamb=1"], "did you mean --method.lam?"),
        (["--method.reward=mine"], "method.reward=mine: must be FILE.py:NAME"),
        (["stray"], "stray"),
        (["--config=configs/none.py"], "configs/none.py: no such file; there are, by name: embedded, marco_o1_7b"),
        (["--config=embeded"], "--config=embeded: no such file; there are, by name: embedded"),
        (["--confg=embedded"], "--confg: no such flag; did you mean --config?"),
        (["--optim.lr=1"], "did you mean --optim.learning_rate?"),
        (["--temperature=1"], "did you mean --sampling.temperature or --evaluation.temperature?"),
        (["--xyzzy=1"], "--xyzzy: no such flag; --help has them all"),
        (["--config"], "--config: needs a value"),
        (["--run="], "--run: the value is empty; give one, or leave the flag out"),
        (["--mesh=8x1", "--problems.train", ""], "--problems.train: the value is empty"),
        (["--problems.user_template=" + "long " * 60], "must contain {problem}"),
        (["--problems.template_kwargs", "enable_thinking", "false"], "write True or False"),
        (["--problems.template_kwargs", "enable_thinking"], "problems.template_kwargs"),
    ],
)
def test_bad_flags_are_one_line_with_a_remedy(argv, message):
    with pytest.raises(BadInput) as error:
        cli.parse_run_config(argv)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def config(): return 1", "must return a RunConfig"),
        ("config = 1 / 0", "ZeroDivisionError"),
        ("import sys; sys.exit(3)", "can't be run: SystemExit: 3"),
        ("", "config"),
    ],
)
def test_bad_config_files(tmp_path, text, message):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(BadInput, match=message):
        cli.load_config(path)


@dataclass(frozen=True)
class Part:
    size: int = 1


@dataclass(frozen=True)
class Arguments:
    out: str
    step: int | None = None
    part: Part = field(default_factory=Part)


def test_plain_dataclasses():
    assert cli.parse(Arguments, ["--out=x", "--step=3", "--part.size=2"]) == Arguments("x", 3, Part(2))
    with pytest.raises(BadInput, match="--out"):
        cli.parse(Arguments, [])
    with pytest.raises(BadInput, match=r"did you mean --part\.size\?"):
        cli.parse(Arguments, ["--siz=2"])
