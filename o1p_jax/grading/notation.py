r"""Answers are rewritten in one notation, so that the rules of equality see each thing in one spelling only.

What models write as Unicode, Markdown, plain text or LaTeX becomes LaTeX without decoration: '³⁄₄', '**3/4**' and
'\dfrac{3}{4}' say the same. Text stays in \text{...}. Every step reads its text once, from left to right.
"""
# ruff: noqa: RUF001, RUF002, SIM905

import re
import unicodedata
from collections.abc import Callable
from functools import reduce

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱˣ", "0123456789+-=()nix", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₒₓₙ", "0123456789+-=()aeoxn", strict=True))
_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi "
    "omega"
).split()
_CHARACTERS = str.maketrans(
    {unicodedata.lookup(f"GREEK SMALL LETTER {'LAMDA' if x == 'lambda' else x}"): rf"\{x} " for x in _GREEK}
    | {
        unicodedata.lookup(f"GREEK CAPITAL LETTER {'LAMDA' if x == 'lambda' else x}"): rf"\{x.capitalize()} "
        for x in ("gamma", "delta", "theta", "lambda", "xi", "pi", "sigma", "phi", "psi", "omega")
    }
    | dict.fromkeys("−–—‐‑﹣", "-")
    | dict.fromkeys("×✕", r"\times ")
    | dict.fromkeys("·⋅∙•", r"\cdot ")
    | dict.fromkeys("∗", "*")
    | dict.fromkeys("∕⁄", "/")
    | dict.fromkeys("…⋯", r"\ldots ")
    | dict.fromkeys("∣￨", "|")
    | dict.fromkeys("“”„", '"')
    | dict.fromkeys("‘’′", "'")
    | dict.fromkeys("\N{NO-BREAK SPACE}\N{THIN SPACE}\N{NARROW NO-BREAK SPACE}\N{EN SPACE}\N{EM SPACE}", " ")
    | dict.fromkeys("\N{ZERO WIDTH SPACE}\N{WORD JOINER}\N{ZERO WIDTH NO-BREAK SPACE}\N{SOFT HYPHEN}", "")
    | {
        "÷": r"\div ",
        "∶": ":",
        "∞": r"\infty ",
        "ϕ": r"\phi ",
        "√": r"\sqrt ",
        "∛": r"\sqrt[3]",
        "∜": r"\sqrt[4]",
        "≤": r"\le ",
        "≥": r"\ge ",
        "⩽": r"\le ",
        "⩾": r"\ge ",
        "≠": r"\ne ",
        "≈": r"\approx ",
        "≡": r"\equiv ",
        "±": r"\pm ",
        "∓": r"\mp ",
        "∈": r"\in ",
        "∪": r"\cup ",
        "∩": r"\cap ",
        "∖": r"\setminus ",
        "∅": r"\emptyset ",
        "ℝ": r"\mathbb{R}",
        "ℤ": r"\mathbb{Z}",
        "ℕ": r"\mathbb{N}",
        "ℚ": r"\mathbb{Q}",
        "ℂ": r"\mathbb{C}",
        "∠": r"\angle ",
        "⟨": r"\langle ",
        "⟩": r"\rangle ",
        "→": r"\to ",
        "°": r"^\circ ",
        "º": r"^\circ ",
        "℃": r"^\circ C",
        "℉": r"^\circ F",
    }
)
_RAISED = re.compile(f"[{re.escape(''.join(_SUPERSCRIPTS))}]+")
_LOWERED = re.compile(f"[{re.escape(''.join(_SUBSCRIPTS))}]+")


def _ascii(text: str) -> str:
    """Writes Unicode's mathematics as LaTeX, and full-width characters as plain ones."""
    if text.isascii():
        return text
    text = re.sub(r"([⁺⁻]?[⁰¹²³⁴-⁹]+)⁄([₀-₉]+)", lambda m: _vulgar(m[1], m[2]), text)
    text = _RAISED.sub(lambda m: "^{" + "".join(_SUPERSCRIPTS[c] for c in m[0]) + "}", text)
    text = _LOWERED.sub(lambda m: "_{" + "".join(_SUBSCRIPTS[c] for c in m[0]) + "}", text)
    text = re.sub("[¼-¾⅐-⅞↉]", lambda m: _vulgar(*unicodedata.normalize("NFKC", m[0]).split("⁄")), text)
    return unicodedata.normalize("NFKC", text.translate(_CHARACTERS)).translate(_CHARACTERS)


def _vulgar(over: str, under: str) -> str:
    over, under = ("".join((_SUPERSCRIPTS | _SUBSCRIPTS).get(c, c) for c in part) for part in (over, under))
    return rf" \frac{{{over}}}{{{under}}}"


_MARKDOWN = (
    (re.compile(r"(?<=[\w)}])\*\*(?=[\w({\\-])"), "^"),  # Python's power
    (re.compile(r"\*\*|__|`"), ""),
)


def _markdown(text: str) -> str:
    """Takes bold, italics and code marks away."""
    return reduce(lambda text, step: step[0].sub(step[1], text), _MARKDOWN, text).strip("* \n")


_DROPPED = (
    "left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr displaystyle textstyle "
    "scriptstyle limits nolimits rm bf it sf tt mathstrut boldmath centering notag nonumber ensuremath"
).split()
_RENAMED = {
    old: new
    for new, names in {
        r"\frac": "dfrac tfrac cfrac nicefrac sfrac",
        r"\le": "leq leqslant leqq",
        r"\ge": "geq geqslant geqq",
        r"\ne": "neq",
        "<": "lt",
        ">": "gt",
        r"\{": "lbrace",
        r"\}": "rbrace",
        "[": "lbrack",
        "]": "rbrack",
        "|": "mid vert lvert rvert",
        r"\ldots": "dots cdots dotsc dotsb",
        " ": "quad qquad enspace thinspace space",
        r"\text{ and }": "land wedge and",
        r"\text{ or }": "lor vee",
        r"\emptyset": "varnothing",
        r"\mathbb{R}": "R reals Reals",
        r"\setminus": "backslash smallsetminus",
        r"\approx": "thickapprox simeq doteq",
        r"^\circ": "degree degrees",
        r"^\circ C": "celsius",
        "*": "ast",
        ":": "colon",
        "%": "percent",
        "'": "prime",
        "£": "pounds",
        "€": "euro",
        "i": "imath",
        "j": "jmath",
        r"\log": "lg",
        r"\tan": "tg",
        r"\arctan": "arctg",
        r"\csc": "cosec",
        r"\phi": "varphi",
        r"\epsilon": "varepsilon",
    }.items()
    for old in names.split()
}
_ARGUMENTS_DROPPED = re.compile(r"\\(?:color|textcolor|hspace|vspace|phantom|hphantom|tag|label)\*?\s*\{[^{}]*\}")
_COMMAND = re.compile(r"\\\\|\\([A-Za-z]+)|\\([!,;:> ()\[\]\n%])")


def _commands(text: str) -> str:
    r"""Gives each LaTeX command one name, and takes away what only shapes the line: \left, \, and math delimiters."""

    def rename(match: re.Match[str]) -> str:
        if match[2]:
            return "%" if match[2] == "%" else "" if match[2] == "!" else " "
        return " " if match[1] in _DROPPED else _RENAMED.get(match[1], match[0])

    text = re.sub(r"\\(?:left|right)\s?\.(?!\d)", " ", _ARGUMENTS_DROPPED.sub(" ", text))
    text = re.sub(r"\{([,:;.])\}", r"\1", text.replace(r"\$", "US$"))
    text = re.sub(r"(\d)\\[,: ](?=\d{3}(?!\d))", r"\1,", text)  # 12\,345
    text = _COMMAND.sub(rename, text)
    text = re.sub(r"\^\s*\{?\s*\\circ\s*\}?", r"^\\circ ", text)
    return _dollars(text.replace("~", " "))


def _dollars(text: str) -> str:
    """Takes the dollar signs of formulas away; one that stands alone before a number is money."""
    if text.replace("US$", "").count("$") == 1:
        text = re.sub(r"(?<!US)\$(?=\s*-?[\d.])", "US$", text)
    return re.sub(r"(?<!US)\$", "", text)


_FUNCTIONS = "sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan ln log exp det gcd lcm min max".split()
_UNWRAPPED = {"boxed", "fbox", "mathbf", "boldsymbol", "bm", "mathit", "mathnormal", "underline"}
_TEXTUAL = {"text", "textbf", "textit", "textrm", "textsf", "texttt", "textnormal", "mathrm", "mathsf", "mbox", "emph"}
_TEXTUAL |= {"operatorname", "hbox", "mathtt", "rm"}
_BRACES = re.compile(r"\\([A-Za-z]+)\*?\s*\{|\\.|[{}]", re.DOTALL)


def _unwrap(text: str) -> str:
    r"""Opens \boxed{...}, \mathbf{...} and the like, and writes every kind of text as \text{...}."""
    out: list[str] = []
    opened: list[tuple[str, int]] = []  # what opened, and where its content starts in `out`
    end = 0
    for token in _BRACES.finditer(text):
        out.append(text[end : token.start()])
        end = token.end()
        name = token[1]
        if token[0] == "}" and opened:
            kind, start = opened.pop()
            if kind == "text":
                out[start:] = [_textual("".join(out[start:]), inside=any(k == "text" for k, _ in opened))]
            elif kind == "vector":
                content = "".join(out[start:])
                out[start:] = [rf"\hat{{{content}}}" if content in ("i", "j", "k") else content]
            elif kind == "keep":
                out.append("}")
        elif token[0] == "{" or name:
            kind = "text" if name in _TEXTUAL else "open" if name in _UNWRAPPED else "keep"
            if name in ("mathbf", "boldsymbol", "bm", "vec") and text[end : end + 2] in ("i}", "j}", "k}"):
                kind = "vector"
            if kind == "keep":
                out.append(f"\\{name}{{" if name else "{")
            opened.append((kind, len(out)))
        else:
            out.append(token[0])
    return _NEEDLESS_BRACES.sub(r" \1", "".join(out) + text[end:])


_NEEDLESS_BRACES = re.compile(r"(?<![\^_}\]A-Za-z])\{ {0,9}([A-Za-z]|\d+) {0,9}\}")


def _textual(content: str, *, inside: bool) -> str:
    """Writes the content of a text, `inside` another or not, as the formula or the text that it is."""
    if inside:
        return content
    if content.strip() in _FUNCTIONS and content.strip() not in ("min", "sec"):  # minutes and seconds
        return rf"\{content.strip()} "
    if not re.search("[A-Za-z]", content) or content.strip() in ("e", "i") or "\\" in content:
        return f" {content} "
    return rf"\text{{{content}}}"


_PLAIN = (
    (re.compile(r"(\A|\\in|\\cup|=)\s*\{([^{}]*[,|:][^{}]*)\}(?=\s*(?:\Z|\\cup))"), r"\1\\{\2\\}"),
    (re.compile(r"(?<![A-Za-z\\])sqrt\s*(?=[\d({])"), r"\\sqrt "),
    (re.compile(r"(?<![A-Za-z\\])cbrt\s*(?=[\d({])"), r"\\sqrt[3]"),
    (re.compile(r"(?<![A-Za-z\\])(?:infinity|Infinity|inf|oo)(?![A-Za-z])"), r"\\infty "),
    (re.compile(rf"(?<![A-Za-z\\])({'|'.join(_GREEK)})(?![A-Za-z])"), r"\\\1 "),
    (re.compile(r"(?<![A-Za-z\\])a(sin|cos|tan)(?=\s*\()"), r"\\arc\1 "),
    (re.compile(r"(?<![A-Za-z\\])(sin|cos|tan|cot|csc|log|ln)(?=[\s^_\d\\]|[a-z](?![a-z]))"), r"\\\1 "),
    (re.compile(rf"(?<![A-Za-z\\])({'|'.join(_FUNCTIONS)})(?=\s*\()"), r"\\\1 "),
    (re.compile(r"\\log_(?:e(?![A-Za-z])|\{e\})"), r"\\ln "),
    (re.compile(r"(?<![A-Za-z\\])abs\s*\(([^()]*)\)"), r"|\1|"),
    (re.compile(r"<=|=<"), r"\\le "),
    (re.compile(r">="), r"\\ge "),
    (re.compile(r"!=(?!=)|=/="), r"\\ne "),
    (re.compile(r"\.\.\.+"), r"\\ldots "),
    (re.compile(r"\+/-|\+-"), r"\\pm "),
    (re.compile(r"([\^_])\s*([-+]?\d\d+|[-+]\d|[-+][a-z](?![a-z]))"), r"\1{\2}"),
    (re.compile(r"\\frac\s*(\d)\s*(\d)(?!\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac\s+(?=\{)"), r"\\frac"),
    (re.compile(r"\\sqrt\s*(\[\d\])?\s*(\d+|[a-z](?![a-z]))"), r"\\sqrt\1{\2}"),
)
_TEXT = re.compile(r"(\\text\{[^{}]*\})")


def _plain(text: str) -> str:
    r"""Writes the plain text's mathematics as LaTeX: pi, sqrt(5), x^(1/2), sin(x), <=; leaves \text{...} alone."""
    parts = _TEXT.split(text)
    parts[::2] = [reduce(lambda part, step: step[0].sub(step[1], part), _PLAIN, part) for part in parts[::2]]
    text = "".join(parts)
    return _braced(text) if r"\sqrt" in text or "^" in text or r"\over" in text else text


_ARGUMENT = re.compile(r"(\^|\\sqrt(?:\[\d\])?)\s*\(")


def _braced(text: str) -> str:
    """Writes the parentheses behind a power sign or a root as braces, and {a \\over b} as a fraction."""
    closes: dict[int, int] = {}
    opened: list[int] = []
    for bracket in re.finditer("[()]", text):
        if bracket[0] == "(":
            opened.append(bracket.start())
        elif opened:
            closes[opened.pop()] = bracket.start()
    letters = list(text)
    for match in _ARGUMENT.finditer(text):
        if (close := closes.get(match.end() - 1)) is not None:
            letters[match.end() - 1], letters[close] = "{", "}"
    return re.sub(r"\{([^{}\\]*)\\over(?![A-Za-z])([^{}\\]*)\}", r"\\frac{\1}{\2}", "".join(letters))


def _spaces(text: str) -> str:
    """Takes needless spaces, outer braces and the punctuation at the end away."""
    text = " ".join(text.split()).strip("`* ").rstrip(".,;: ").lstrip(",;: ")
    if len(text) > 2 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    while len(text) > 1 and text[0] == "{" and text[-1] == "}" and "{" not in text[1:-1] and "}" not in text[1:-1]:
        text = text[1:-1].strip()
    return text


_STEPS: tuple[Callable[[str], str], ...] = (_ascii, _markdown, _commands, _unwrap, _plain, _spaces)


def clean(answer: str) -> str:
    """Returns the answer in the one notation that the rest of the grader reads."""
    return reduce(lambda text, step: step(text), _STEPS, answer)
