"""A solution's answer is told from the thoughts before it by the marks that models put around their thoughts.

The marks are those of the reasoning parsers of vLLM and SGLang, November 2026. Names in tags are recognised whatever
stands around them (begin_of_, seed:), so that a model's own spelling needs no entry here.
"""

import re
from collections import deque

THOUGHT = "<think>"
"""A mark that opens a thought, put before a solution whose prompt has opened one."""
_NAME = r"(?!no_)(?:[\w:]{0,24}[:_])?(?:think(?:ing)?|thoughts?|reason(?:ing)?|scratchpad|cot)"
_MARK = re.compile(
    rf"""[<\[◁H](?i:  # one class of first characters, in their case: text without them is passed over fast
    (?P<ends>
        \|?/{_NAME}(?::\w{{1,24}})?\|?[>▷]                     # </think> </seed:think> </think:opensource> ◁/think▷
      | \|?(?:\w{{1,24}}:)?end_(?:of_)?{_NAME}(?::\w{{1,24}})?\|?>  # <|end_of_thought|> <|END_THINKING|>
      | \|?{_NAME}[:_]end\|?>                                  # <|think:end|>
      | (?-i:/THINK\])                                         # [/THINK]: Magistral
      | \|channel\|>\s*final(?:[^<]{{0,80}}<\|constrain\|>)?(?:[^<]{{0,80}}<\|message\|>)?  # gpt-oss
      | channel\|>                                             # Gemma 4
      | \|inner_suffix\|>                                      # Apertus
      | \|content_text\|>                                      # Inkling
      | \|close\|>think<\|sep\|>                               # Kimi K3
      | \|im_start\|>answer                                    # s1
      | (?-i:BEGIN\ FINAL\ RESPONSE\])                         # Apriel
      | ere(?:\ is|'s)\ my\ response:                          # Granite 3.2
    )
    | \|?{_NAME}(?::\w{{1,24}}|[:_]start|[:_]begin)?\|?[>▷]
    | (?-i:THINK\])
    | \|channel\|>\s*\w+(?:[^<]{{0,80}}<\|message\|>)?
    | \|channel>(?:thought)?
    | \|inner_prefix\|>
    | \|content_thinking\|>
    | \|open\|>think<\|sep\|>
    | \|im_start\|>think
    | ere\ are\ my\ reasoning\ steps:
    | ere(?:\ is|'s)\ my\ thought\ process:
    )""",
    re.VERBOSE,
)
_PIECES = ("channel", "message", "constrain", "open", "close", "sep", "im_start")
"""Names of the tokens <|...|> of which several, with text between them, make up a mark."""


def answer_part(text: str, unclosed: bool = False) -> str:
    """Returns what of a solution's text may hold its answer: what follows the last thought.

    Text without any mark of a thought is an answer as a whole. A thought that is not closed hides all after its
    beginning: the result is then empty, or with `unclosed` the thought itself.
    """
    last = _last_mark(text)
    if last is None:
        return text
    return text[last.end() :] if last["ends"] or unclosed else ""


def thought_end(text: str) -> int | None:
    """Returns where the last thought of a solution's text ends, its mark included.

    A thought that is not closed ends with the text; text without any mark of a thought has none: None.
    """
    mark = closing_mark(text)
    return mark and mark[1]


def closing_mark(text: str) -> tuple[int, int] | None:
    """Returns from where to where the mark stands that closes the last thought of a solution's text.

    For a thought that is not closed it is an empty place at the end of the text, for text without a thought None.
    """
    last = _last_mark(text)
    if last is None:
        return None
    return last.span() if last["ends"] else (len(text), len(text))


def _last_mark(text: str) -> re.Match | None:
    marks = deque(_MARK.finditer(text), maxlen=1)
    return marks[0] if marks else None


def opens_thought(prompt: str) -> bool:
    """Returns whether a prompt's text ends with a mark that opens a thought, so that the solution begins inside it."""
    tail = prompt[-200:].rstrip()
    return any(mark.end() == len(tail) and not mark["ends"] for mark in _MARK.finditer(tail))


def belongs_to_mark(token: str) -> bool:
    """Returns whether a token's text is a mark of thoughts, or a part of one."""
    return _MARK.fullmatch(token) is not None or token in [f"<|{name}|>" for name in _PIECES]
