"""The marks of thoughts that models write, and what may hold the answer."""

import pytest

from o1p_jax.grading.extract import final_answer
from o1p_jax.grading.thoughts import answer_part, belongs_to_mark, closing_mark, opens_thought, thought_end

MARKS = {
    "DeepSeek-R1, QwQ, Qwen3": ("<think>", "</think>"),
    "thinking": ("<thinking>", "</thinking>"),
    "Marco-o1": ("<Thought>", "</Thought>"),
    "EXAONE Deep": ("<thought>", "</thought>"),
    "Kimi": ("◁think▷", "◁/think▷"),
    "Magistral": ("[THINK]", "[/THINK]"),
    "Seed-OSS": ("<seed:think>", "</seed:think>"),
    "OpenThinker": ("<|begin_of_thought|>", "<|end_of_thought|>"),
    "Command A Reasoning": ("<|START_THINKING|>", "<|END_THINKING|>"),
    "LongCat": ("<longcat_think>", "</longcat_think>"),
    "MiniMax-M3": ("<mm:think>", "</mm:think>"),
    "Hunyuan": ("<think:opensource>", "</think:opensource>"),
    "Solar Open 2": ("<|think:start|>", "<|think:end|>"),
    "PLaMo 3": ("<|plamo:begin_think:plamo|>", "<|plamo:end_think:plamo|>"),
    "Reka Flash 3": ("<reasoning>", "</reasoning>"),
    "gpt-oss": ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
    "gpt-oss, JSON": ("<|channel|>commentary<|message|>", "<|channel|>final <|constrain|>json<|message|>"),
    "Gemma 4": ("<|channel>thought", "<channel|>"),
    "Apertus": ("<|inner_prefix|>", "<|inner_suffix|>"),
    "Inkling": ("<|content_thinking|>", "<|content_text|>"),
    "Kimi K3": ("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    "s1": ("<|im_start|>think", "<|im_start|>answer"),
    "Apriel": ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
    "Granite 3.2": ("Here is my thought process:", "Here is my response:"),
    "another spelling": ("<|thinking_start|>", "<|thinking_end|>"),
}


@pytest.mark.parametrize(("opening", "closing"), MARKS.values(), ids=MARKS.keys())
def test_only_what_follows_the_thoughts_may_hold_the_answer(opening, closing):
    assert final_answer(rf"{opening}\boxed{{1}}{closing}It is \boxed{{2}}.") == "2"
    assert final_answer(rf"{opening}\boxed{{1}}{closing}I can't say.") is None
    assert final_answer(rf"\boxed{{1}}{closing}It is \boxed{{2}}.") == "2"  # the prompt opened the thought
    cut_off = rf"{opening}\boxed{{1}}, or"
    assert final_answer(cut_off) is None
    assert final_answer(cut_off, unclosed_thought=True) == "1"
    again = rf"{opening}a{closing}\boxed{{1}}{opening}\boxed{{2}}"
    assert (final_answer(again), final_answer(again, unclosed_thought=True)) == (None, "2")


@pytest.mark.parametrize(("opening", "closing"), MARKS.values(), ids=MARKS.keys())
def test_a_prompt_may_end_inside_a_thought(opening, closing):
    assert opens_thought(f"1+1?<assistant>{opening}\n")
    assert not opens_thought(f"1+1?<assistant>{opening}\n\n{closing}\n\n")
    assert not opens_thought(f"Think between {opening} and {closing}.<assistant>")
    assert not opens_thought(f"Begin with {opening}.<assistant>")


@pytest.mark.parametrize(
    "text",
    [
        r"So \boxed{2}.",
        r"We think 1 < x and y > 0, so \boxed{2}.",
        r"[Reasoning] \boxed{2}",
        r"<thinker>\boxed{2}",
        r"<think_off>\boxed{2}",
        r"<no_think>\boxed{2}",
        r"Here we are: \boxed{2}",
    ],
)
def test_a_text_without_marks_is_an_answer_as_a_whole(text):
    assert answer_part(text) == text and final_answer(text) == "2"


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("<think>a</think>b", 16),
        ("<think>a</think>b<think>c</think>", 33),
        ("<think>a</think>b<think>c", 25),
        ("<|channel|>analysis<|message|>a<|channel|>final<|message|>b", 58),
        ("", None),
        ("b", None),
    ],
)
def test_where_the_last_thought_ends(text, end):
    assert thought_end(text) == end


def test_where_the_mark_stands_that_closes_the_last_thought():
    assert closing_mark("<think>a</think>b</think>c") == (17, 25)
    assert closing_mark("<think>a</think>b<think>c") == (25, 25)
    assert closing_mark("b") is None


def test_tokens_of_marks():
    tokens = ("<think>", "[/THINK]", "<|channel|>", "<|message|>", "<|END_THINKING|>", "<channel|>", "◁/think▷")
    assert all(map(belongs_to_mark, tokens))
    assert not any(map(belongs_to_mark, ("</s>", "<|end|>", "<|return|>", "<|im_end|>", "<pad>", "think", "<image>")))


@pytest.mark.parametrize(
    "piece",
    ["<", "<think", "<_", "<a_", "<a:think", "<think_", "<|channel|>final ", "<|channel|>", "[THINK", "Here ", "<:"],
)
def test_long_runs_of_broken_marks_are_read(piece):
    for text in (piece * (200_000 // len(piece)), "<" + piece[1:] * (200_000 // len(piece))):
        assert text.endswith(answer_part(text))
