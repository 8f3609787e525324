"""Prompts that are the same for sampling and training, and text of what was sampled."""

import datetime
import json

import pytest
from host import CHAT_TEMPLATE, model_folder, problem_file

from o1p_jax.config.tree import ProblemConfig
from o1p_jax.data.problems import load_problems
from o1p_jax.data.prompts import Prompter, make_prompts
from o1p_jax.data.records import Problem, problem_id
from o1p_jax.grading.extract import final_answer
from o1p_jax.runtime.errors import BadInput

CFG = ProblemConfig()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("model"))


def problem(text="1+1?", **fields):
    return Problem(
        problem_id=problem_id(text, "2"), source="s", split="t", level="-", problem=text, answer="2", **fields
    )


def test_prompt_goes_through_the_chat_template_with_one_bos(model):
    cfg = ProblemConfig(system_prompt="Think {hard}.", user_template="Solve the problem: {problem}")
    prompter = Prompter(model, cfg)
    ids = prompter.prompt_ids(problem("is {x} = 1?"))
    assert prompter.decode(ids) == "<system>Think {hard}.<user>Solve the problem: is {x} = 1?<assistant>"
    assert ids[0] == 1 and ids.count(1) == 1


def test_the_identity_covers_all_that_makes_the_prompts(model, tmp_path):
    file = str(problem_file(tmp_path / "p.jsonl", 3))
    configs = [CFG, ProblemConfig(system_prompt="x"), ProblemConfig(user_template="{problem}!")]
    sets = [make_prompts(model, load_problems(file, cfg, None), cfg) for cfg in configs]
    other = model_folder(tmp_path / "other", chat_template="{{ messages[0]['content'] }}")
    sets.append(make_prompts(other, load_problems(file, CFG, None), CFG))
    assert len({s.identity["prompts_sha256"] for s in sets}) == 4
    assert len({s.identity["problems_sha256"] for s in sets}) == 1
    assert (
        make_prompts(model, load_problems(file, CFG, 2), CFG).identity["problems_sha256"]
        != sets[0].identity["problems_sha256"]
    )


def test_eos_ids_are_the_generation_configs_and_the_tokenizers(tmp_path):
    model_folder(tmp_path)
    assert Prompter(tmp_path, CFG).eos_ids == (2,)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 2, 9]}')
    assert Prompter(tmp_path, CFG).eos_ids == (7, 2, 9)


def test_decode_leaves_out_special_tokens(model):
    assert Prompter(model, CFG).decode([68, 2, 0]) == Prompter(model, CFG).decode([68])


def test_models_that_do_not_fit(tmp_path, model):
    with pytest.raises(BadInput, match="has no chat template"):
        Prompter(model_folder(tmp_path / "a", chat_template=None), CFG).prompt_ids(problem())
    with pytest.raises(BadInput, match=r"holds the token u \(87\), which is not among the model's 80"):
        Prompter(model_folder(tmp_path / "b", vocab_size=80), CFG).prompt_ids(problem())
    with pytest.raises(BadInput, match="no usable tokenizer") as e:
        Prompter(tmp_path, CFG)
    assert "\n" not in str(e.value)
    refusing = model_folder(tmp_path / "c", chat_template="{{ raise_exception('no system turn') }}")
    with pytest.raises(BadInput, match="refuses the messages"):
        Prompter(refusing, ProblemConfig(system_prompt="x")).prompt_ids(problem())


def test_long_prompts_are_named(model):
    with pytest.raises(BadInput, match=r"prompt tokens; raise problems\.max_prompt_tokens=12"):
        Prompter(model, ProblemConfig(max_prompt_tokens=12)).prompt_ids(problem("what is one plus one?"))


def test_long_prompts_are_left_out_where_that_is_said(model, capsys):
    cfg = ProblemConfig(max_prompt_tokens=32, too_long="skip")
    made = make_prompts(model, [problem("1+1?"), problem("what is one plus one?")], cfg)
    assert [p.problem for p in made.problems] == ["1+1?"] and len(made.prompt_ids) == 1
    assert "s: 1 of 2 problems are left out, longer than problems.max_prompt_tokens=32" in capsys.readouterr().err
    with pytest.raises(BadInput, match=r"every prompt is longer than problems\.max_prompt_tokens=32"):
        make_prompts(model, [problem("what is one plus one?")], cfg)


def test_an_added_token_beyond_the_vocabulary_is_refused_only_in_a_prompt(tmp_path):
    """Gemma 3's text models have a placeholder for images that no prompt holds."""
    folder = model_folder(tmp_path, vocab_size=259, special=["<picture>"])
    assert max(Prompter(folder, CFG).prompt_ids(problem())) < 259
    with pytest.raises(
        BadInput, match=r"problem \w+ \('a <picture> \.\.\.'\): the prompt holds the token <picture> \(259\)"
    ):
        Prompter(folder, CFG).prompt_ids(problem("a <picture>"))


def test_a_chat_is_used_as_it_is(model):
    turns = ({"role": "system", "content": "Think."}, {"role": "user", "content": "1+1?"})
    prompter = Prompter(model, CFG)
    assert prompter.decode(prompter.prompt_ids(problem(chat=turns))) == "<system>Think.<user>1+1?<assistant>"


def test_the_date_is_the_configurations_and_not_the_clocks(tmp_path):
    chat = "{{ strftime_now('%d %b %Y') }} " + CHAT_TEMPLATE
    folder = model_folder(tmp_path, chat_template=chat)
    prompter = Prompter(folder, ProblemConfig(date="2026-11-30"))
    assert prompter.decode(prompter.prompt_ids(problem())).startswith("30 Nov 2026 <user>")
    today = Prompter(folder, CFG)
    assert today.decode(today.prompt_ids(problem()))[7:11] == str(datetime.date.today().year)
    with pytest.raises(BadInput, match=r"problems\.date=tomorrow: must be a day, such as"):
        ProblemConfig(date="tomorrow")


def test_a_named_chat_template_is_chosen_by_its_name(tmp_path):
    """A tokenizer may have several, and none that is the default."""
    folder = model_folder(tmp_path)
    named = [{"name": name, "template": f"{name}:" + CHAT_TEMPLATE} for name in ("search", "tool_use")]
    (folder / "chat_template.jinja").unlink()
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": named}))
    with pytest.raises(BadInput, match=r"chat_template=None: .* has the chat templates search, tool_use; name one"):
        Prompter(folder, CFG).prompt_ids(problem())
    assert Prompter(folder).decode([68, 2]) == "b"  # text needs no template
    prompter = Prompter(folder, ProblemConfig(chat_template="search"))
    assert prompter.decode(prompter.prompt_ids(problem())).startswith("search:<user>")


def test_variables_reach_the_chat_template_and_misspelt_ones_are_refused(tmp_path):
    chat = CHAT_TEMPLATE + "{% if enable_thinking is false %}<think>\n\n</think>{% endif %}"
    folder = model_folder(tmp_path, chat_template=chat)
    prompter = Prompter(folder, ProblemConfig(template_kwargs={"enable_thinking": False}))
    assert prompter.decode(prompter.prompt_ids(problem())).endswith("<assistant><think>\n\n</think>")
    with pytest.raises(BadInput, match="has no variable enable_thinkng"):
        Prompter(folder, ProblemConfig(template_kwargs={"enable_thinkng": False})).prompt_ids(problem())
    for name, value in (("messages", "x"), ("strftime_now", 1), ("enable_thinking", "false")):
        with pytest.raises(BadInput, match=rf"problems\.template_kwargs=.*{name}"):
            ProblemConfig(template_kwargs={name: value})


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for i in range(10**9) %}x{% endfor %}", "Range too big"),
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "more than 0.3 s of processor",
        ),
        ("{{ messages[0]['content'] + 1 }}", "can only concatenate str"),
    ],
)
def test_templates_that_fail_or_never_end_are_refused(tmp_path, monkeypatch, template, reason):
    monkeypatch.setattr("o1p_jax.data.prompts._RENDERING_S", 0.3)
    with pytest.raises(BadInput, match=f"the chat template fails .*{reason}"):
        Prompter(model_folder(tmp_path, chat_template=template), CFG).prompt_ids(problem())


def test_a_template_that_writes_nothing_is_refused(tmp_path):
    with pytest.raises(BadInput, match="makes an empty prompt"):
        Prompter(model_folder(tmp_path, chat_template="{{ '' }}"), CFG).prompt_ids(problem())


@pytest.mark.parametrize(
    ("special", "text", "shown", "answer"),
    [
        (
            ["<|start|>", "<|channel|>", "<|message|>", "<|end|>"],
            "<|channel|>analysis<|message|>\\boxed{1}<|end|><|start|>assistant<|channel|>final<|message|>\\boxed{2}</s>",
            "<|channel|>analysis<|message|>\\boxed{1}assistant<|channel|>final<|message|>\\boxed{2}",
            "2",
        ),
        (["<think>", "</think>"], "<think>\\boxed{1}</think>two</s>", "<think>\\boxed{1}</think>two", None),
        (
            ["[THINK]", "[/THINK]"],
            "[THINK]\\boxed{1}[/THINK]\\boxed{2}</s>",
            "[THINK]\\boxed{1}[/THINK]\\boxed{2}",
            "2",
        ),
        (["<|done|>"], "\\boxed{1}<|done|></s>", "\\boxed{1}", "1"),
    ],
)
def test_special_tokens_that_mark_thoughts_stay_in_the_text(tmp_path, special, text, shown, answer):
    prompter = Prompter(model_folder(tmp_path, special=special), CFG)
    ids = prompter._tokenizer(text, add_special_tokens=False)["input_ids"]
    assert prompter.decode(ids) == shown and final_answer(prompter.decode(ids)) == answer
    assert prompter.decode(ids, special=True) == text
    assert not any(token in prompter.decode(ids, special=False) for token in special)


def test_prompts_that_open_a_thought_are_told_apart(tmp_path):
    chat = CHAT_TEMPLATE + "{% if 'no' in messages[0]['content'] %}<think>\n\n</think>{% else %}<think>\n{% endif %}"
    problems = [problem("1+1?"), problem("1+1, no thoughts?")]
    made = make_prompts(model_folder(tmp_path, chat_template=chat), problems, CFG)
    assert made.inside_thought == {problems[0].problem_id}
