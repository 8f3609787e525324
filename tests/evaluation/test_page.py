"""The page is opened in a real browser where there is one (headless Chromium)."""

import html
import json
import random
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_rollouts import rollouts, row

from o1p_jax.evaluation.effort import with_passes
from o1p_jax.evaluation.experiment_page import figures, write
from o1p_jax.evaluation.page import pick_examples, read_results, write_report
from o1p_jax.evaluation.summary import Graded, compare
from o1p_jax.evaluation.table import Note
from o1p_jax.evaluation.why import DIFFICULTY, REMOVED, SPENT
from o1p_jax.grading.passes import KINDS

SCRIPT = "<script>document.title='owned'</script>"
HOSTILE = {
    "script": SCRIPT + "<img src=x onerror=\"document.title='owned'\">",
    "pre": "</pre></div></section></main><h1>escaped</h1><style>body{display:none}</style>",
    "template": "{{ report }} {% raw %} ${7*7} &lt;b&gt; &amp;amp;",
    "long": "x" * 20_000 + " " + "word " * 500,
    "direction": "\u202eevil\u202c \u2066isolate\u2069 \u05e9\u05dc\u05d5\u05dd mixed",
    "control": "\x00null \x1b[31mred \u200bzero-width",
    "newline": "\n\nstarts with blank lines",
    "svg": "'\"><svg onload=alert(1)>",
}
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
]
browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")


def hostile_runs() -> list[Graded]:
    rows = [
        row(name, 10 + i, "correct" if i % 2 else "wrong", text=text, answer="\\boxed", level=f"{i % 2}<b>")
        | {"problem": text, "pred": text[:50], "problem_id": f"id{i}"}
        for i, (name, text) in enumerate(HOSTILE.items())
    ]
    set_name = f"</title>{SCRIPT}$x^{{"
    return [
        Graded(name, set_name, with_passes(rollouts(of_model), lambda ids: [1] * len(ids)))
        for name, of_model in [("base <i>$\\frac$</i>", rows), ("new'\"" + "m" * 300, rows[::-1])]
    ]


def write_hostile(folder: Path) -> Path:
    runs = hostile_runs()
    return write_report(
        folder,
        runs,
        compare(runs, budgets=(11, 14), resamples=50),
        title=f"</title>{SCRIPT}",
        facts={"fact</dl>": SCRIPT, "long": "y" * 5000},
        notes={runs[0].problem_set: [Note(f"overlap, such as {SCRIPT}", warns=True), Note("n" * 500)]},
        shown=20,
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write_hostile(tmp_path_factory.mktemp("report"))


class Page(HTMLParser):
    """The tags of a page, and the text inside each <pre>."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "pre":
            self.inside = True
            self.texts.append("")

    def handle_endtag(self, tag):
        self.inside &= tag != "pre"

    def handle_data(self, data):
        if self.inside:
            self.texts[-1] += data


def shown(text: str) -> str:
    """As the page shows it: characters that hide or reorder text by their code."""
    return re.sub("[\x00\x1b\u200b\u202e\u202c\u2066\u2069]", lambda m: f"\\u{ord(m[0]):04x}", text)


def open_in_chromium(folder, text: str) -> str:
    """The page's DOM after it was loaded, as HTML."""
    file = folder / "opened.html"
    file.write_text(text, encoding="utf-8")
    command = [
        CHROMIUM,
        *FLAGS,
        f"--user-data-dir={folder / 'profile'}",
        "--window-size=1280,900",
        "--dump-dom",
        file.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, timeout=120, check=True).stdout.decode()


def check_intact(dom: str) -> None:
    found = Page(dom)
    names = [tag for tag, _ in found.tags]
    assert names.count("pre") == 2 * len(HOSTILE) and names.count("main") == names.count("h1") == 1
    assert not {"script", "svg", "iframe", "object", "link"} & set(names)
    assert not [attrs for _, attrs in found.tags if any(name.startswith("on") for name in attrs)]
    texts = {text.strip("\n") for text in found.texts}  # a parser drops the line break that follows <pre>
    assert texts == {shown(text).strip("\n") for text in HOSTILE.values()}


def test_page_is_self_contained_and_forbids_the_rest(page):
    text = page.read_text(encoding="utf-8")
    found = Page(text)
    policy = next(attrs["content"] for tag, attrs in found.tags if "http-equiv" in attrs)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    addresses = [attrs[name] for _, attrs in found.tags for name in ("src", "srcset", "href") if name in attrs]
    assert addresses and all(address.startswith("data:image/svg+xml;base64,") for address in addresses)
    check_intact(text)


@browser
def test_hostile_text_is_only_text_in_a_browser(page, tmp_path):
    dom = open_in_chromium(tmp_path, page.read_text(encoding="utf-8"))
    check_intact(dom)
    assert "<title>&lt;/title&gt;" in dom
    assert dom.count("<bdi>new'\"mmm") > 10 and "What the tokens are spent on: base &lt;i&gt;" in dom


@browser
def test_why_it_works_unfolds_to_three_tables_and_a_picture(page, tmp_path):
    """Measured in a browser: the section is there, closed at first, and its tables and bars take room when opened."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    script = (
        "<script>onload = () => { const why = [...document.querySelectorAll('details')].find(d => "
        "d.firstElementChild.textContent.startsWith('What the tokens are spent on')); const closed = !why.open; "
        "why.open = true; const high = e => e.getBoundingClientRect().height > 40; "
        "document.title = [closed, [...why.querySelectorAll('table')].filter(high).length, "
        "[...why.querySelectorAll('img')].filter(high).length].join() }</script>"
    )
    assert "<title>true,3,1</title>" in open_in_chromium(tmp_path, text + script)


@browser
@pytest.mark.parametrize("width", [360, 1280])
def test_page_keeps_to_the_screens_width(page, tmp_path, width):
    """Measured by a script in a page around it; without the policy, so that escaping is tested alone too."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    text = text.replace("<details", "<details open")
    assert "Content-Security-Policy" not in text
    measure = (
        "const page = this.contentDocument, { scrollWidth, clientWidth } = page.documentElement; "
        "document.body.textContent = `${scrollWidth - clientWidth} beyond, ${page.title}`"
    )
    frame = f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{html.escape(text)}" onload="{measure}">'
    dom = open_in_chromium(tmp_path, f"<!doctype html><meta charset=utf-8><body>{frame}")
    assert "<body>0 beyond, &lt;/title&gt;" in dom


def test_json_beside_the_page_holds_its_figures(page):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    text = (page.parent / "report.json").read_text(encoding="utf-8")
    report = json.loads(text, parse_constant=refuse)
    assert list(report) == ["key", "title", "facts", "results", "notes", "examples"]
    overall = report["results"][1]["overall"]
    assert overall["accuracy"].keys() == {"value", "low", "high"} and overall["change"]["tokens"]["value"] == 0
    effort = overall["effort"]
    assert (
        sum(effort["tokens"].values()) == overall["tokens"]["value"] == 13.5 and effort["change"]["first"]["low"] == 0
    )
    assert report["results"][1]["levels"]["0<b>"]["change"]["aes"]["value"] is None
    assert list(overall["at_budget"]) == ["11", "14"] and overall["budget_area"].keys() == {"value", "low", "high"}
    [verdict, overlap, _] = report["notes"][f"</title>{SCRIPT}$x^{{"]
    assert "fell beyond its 95% interval nowhere" in verdict["text"] and not verdict["warns"]
    assert overlap == {"text": f"overlap, such as {SCRIPT}", "warns": True}
    assert "| level | model |" in (page.parent / "table.md").read_text()


def test_the_same_runs_give_the_same_page(page, tmp_path):
    assert write_hostile(tmp_path).read_bytes() == page.read_bytes()


def test_the_page_draws_the_budgets_and_tells_what_speaks_against_the_figures(page):
    text = page.read_text(encoding="utf-8")
    assert "Accuracy at token budgets: base" in text and text.count("<figure>") == 4
    assert '<li class="warns"><bdi>overlap, such as &lt;script&gt;' in text and text.count("<li") == 3


def test_a_report_is_read_back_as_it_was_written_and_only_by_its_key(tmp_path):
    runs = hostile_runs()
    results = compare(runs, budgets=(11, 14), resamples=20)
    write_report(tmp_path, runs, results, title="t", facts={}, notes={}, key="made by")
    assert repr(read_results(tmp_path, "made by")) == repr(results)  # not a number is not equal to itself
    assert read_results(tmp_path, "") is None


def test_an_experiments_page_and_rows_tell_why_its_methods_work(tmp_path):
    runs = hostile_runs()
    results = compare(runs, resamples=20)
    write(tmp_path, {None: results, 0: results}, {}, runs, notes=[])
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    check_intact(text)
    assert text.count("<summary>What the tokens are spent on and what was removed, by level") == 1
    assert text.count("<figure>") == 5  # Pareto, bars; a report's two and its bars
    assert {title for title in (SPENT, REMOVED, DIFFICULTY) if title in (tmp_path / "table.md").read_text()} == {
        SPENT, REMOVED, DIFFICULTY,
    }  # fmt: skip
    over_all, *_ = figures(results[1], "test", None)
    assert sum(over_all[f"tokens_{kind}"] for kind in KINDS) == over_all["tokens"]
    assert over_all["tokens_repeated_change"] == 0 and over_all["tokens_repeated_change_low"] == 0
    assert over_all["follows_difficulty_low"] <= over_all["follows_difficulty"] <= over_all["follows_difficulty_high"]


def test_solutions_that_were_not_cut_make_a_page_without_the_section(tmp_path):
    runs = [run._replace(rows=run.rows.drop_columns(["tokens_by_kind", "is_answered"])) for run in hostile_runs()]
    results = compare(runs, resamples=20)
    write(tmp_path, {None: results}, {}, runs, notes=[])
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "spent on" not in text and text.count("<figure>") == 3
    assert "tokens_first" not in figures(results[1], "test", None)[0]


def test_one_model_without_levels_makes_a_page_too(tmp_path):
    runs = [Graded("only", "set", rollouts([row("a", 5, "correct"), row("b", 7, "wrong", finish="length")]))]
    text = write_report(tmp_path, runs, compare(runs), title="one", facts={}, notes={}).read_text(encoding="utf-8")
    assert "AES</span>" not in text and "cut off" in text and text.count("<figure>") == 1


def test_examples_come_from_each_fate_in_turn_and_do_not_depend_on_order():
    base = [row(f"p{i:02}", 5, "correct" if i < 12 else "wrong") for i in range(24)]
    new = [row(f"p{i:02}", 5, "correct" if 1 <= i < 12 or i == 20 else "wrong") for i in range(24)]
    runs = [Graded("base", "set", rollouts(base)), Graded("new", "set", rollouts(new))]
    examples = pick_examples(runs, shown=8, seed=0)
    assert [e.fate for e in examples] == ["lost", "gained", "kept", "neither", "kept", "neither", "kept", "neither"]
    assert all([s.model for s in e.solutions] == ["base", "new"] for e in examples)
    random.Random(0).shuffle(base)
    runs = [Graded("base", "set", rollouts(base)), Graded("new", "set", rollouts(new[::-1]))]
    assert pick_examples(runs, shown=8, seed=0) == examples
    assert pick_examples(runs, shown=8, seed=1) != examples


def test_what_follows_the_first_correct_answer_is_marked(tmp_path):
    rows = [row("a", 5, "correct", text=r"It is \boxed{4}. Let me check. \boxed{4}")]
    runs = [Graded("only", "set", rollouts(rows))]
    text = write_report(tmp_path, runs, compare(runs), title="one", facts={}, notes={}).read_text(encoding="utf-8")
    assert '<pre tabindex="0">\nIt is \\boxed{4}<mark>. Let me check. \\boxed{4}</mark></pre>' in text
