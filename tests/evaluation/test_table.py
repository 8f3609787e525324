import re
from itertools import chain

from made_rollouts import rollouts, row, simple

from o1p_jax.evaluation.scores import Interval
from o1p_jax.evaluation.summary import Graded, compare
from o1p_jax.evaluation.table import Note, fallen, markdown, percent, score, show, verdicts


def results(model="new"):
    base, new = (
        rollouts([row(f"p{i}", n * (i + 1), grade, level=str(i % 2 + 1)) for i, grade in enumerate(grades)])
        for n, grades in ((100, ["correct", "wrong"]), (50, ["correct", "correct"]))
    )
    return compare([Graded("base", "set", base), Graded(model, "set", new)], budgets=(60, 120), resamples=100)


def cells(text: str) -> list[list[list[str]]]:
    """The cells of each table."""
    tables = [part for part in text.split("\n\n") if part[:1] == "|"]
    return [[[cell.strip() for cell in line.strip("|").split(" | ")] for line in part.splitlines()] for part in tables]


def test_markdown_holds_the_figures_overall_and_by_level():
    (heading, rule, *body), _ = cells(markdown(results(), {}))
    assert heading == [
        "level",
        "model",
        "accuracy %",
        "tokens",
        "cut off %",
        "accuracy change",
        "tokens change %",
        "AES",
    ]
    assert all(set(mark) <= set("-: ") for mark in rule)
    assert [line[:2] for line in body] == [
        ["all", "base"],
        ["all", "new"],
        ["1", "base"],
        ["1", "new"],
        ["2", "base"],
        ["2", "new"],
    ]
    assert body[0][2].startswith("50.0 [") and body[0][3] == "150" and body[0][5:] == ["", "", ""]
    assert body[1][2:4] == ["100.0 [100.0,100.0]", "75"]
    assert body[1][5].startswith("+50.0 [") and body[1][6] == "-50.0 [-50.0,-50.0]" and body[1][7].startswith("3.50 [")
    assert body[5][7] == "n/a"


def test_a_second_table_tells_of_budgets_and_of_where_the_tokens_go():
    _, (heading, _, *body) = cells(markdown(results(), {}))
    ends = ["if right", "if wrong", "outcome efficiency %"]
    assert heading == ["level", "model", "≤60 %", "≤120 %", "area %", *ends]
    assert body[0][2:4] == ["0.0", "50.0"] and body[0][4].startswith("13.2 [") and body[0][5:7] == ["100", "200"]
    assert body[1][2:4] == ["50.0", "100.0"] and body[1][5:7] == ["75", "–"]  # noqa: RUF001
    thinking = compare([Graded("only", "set", rollouts([row("a", 9, "wrong", thought=6)]))], resamples=10)
    _, (heading, _, line) = cells(markdown(thinking, {}))
    assert heading[2:] == ["thought", "after it", *ends] and line[2:4] == ["6", "3"]


def test_terminal_tables_and_notes_hold_the_same(capsys):
    notes = {"set": [Note("overlap: a lot", warns=True)]}
    show(results(), notes)
    text = capsys.readouterr().out
    assert text.startswith("set: 2 problems, one sample each; 95% bootstrap intervals in brackets")
    written = markdown(results(), notes)
    for line in [line for table in cells(written) for line in table[2:]]:
        for cell in line[1:]:
            assert cell in text
    assert "- **overlap: a lot**" in written.splitlines() and "overlap: a lot" in text.splitlines()
    assert "- new: accuracy fell beyond its 95% interval nowhere; the lowest" in written
    assert "(not judged, of fewer than 8 problems: level 1, 2)" in written


def test_a_narrow_terminal_cuts_no_figure_off(capsys, monkeypatch):
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    monkeypatch.setenv("COLUMNS", "72")
    show(results(), {})
    text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert "…" not in text and max(map(len, text.splitlines())) <= 72


def level(name: str, lost: int, problems: int = 40) -> tuple[list[dict], list[dict]]:
    """A level of which the base solves all problems, and the other model all but `lost`."""
    grades = ["wrong"] * lost + ["correct"] * (problems - lost)
    return tuple(
        [row(f"{name}/{i}", 9, grade, level=name) for i, grade in enumerate(of_model)]
        for of_model in (["correct"] * problems, grades)
    )


def test_a_level_whose_accuracy_fell_is_named_with_its_interval():
    base, new = (list(chain(*rows)) for rows in zip(level("1", 0), level("2", 12), level("3", 1), strict=True))
    [note] = verdicts(compare([Graded("base", "set", rollouts(base)), Graded("new", "set", rollouts(new))]))
    assert note.warns and note.text.startswith("new: accuracy fell beyond its 95% interval on all problems (-10.8 [")
    assert "level 2 (-30.0 [-45.0,-1" in note.text and "level 1" not in note.text and "level 3" not in note.text


def test_a_level_of_a_few_problems_is_not_judged_by_itself():
    base, new = (list(chain(*rows)) for rows in zip(level("1", 0), level("2", 7, 7), level("3", 0, 8), strict=True))
    [result] = compare([Graded("base", "set", rollouts(base)), Graded("new", "set", rollouts(new))])[1:]
    assert list(fallen(result)) == ["all problems"]
    assert verdicts([result])[0].text.endswith("(not judged, of fewer than 8 problems: level 2)")


def test_where_none_fell_the_line_says_so_and_how_far_the_intervals_reach():
    base, new = (list(chain(*rows)) for rows in zip(level("1", 0), level("2", 1), strict=True))
    runs = [Graded("base", "set", rollouts(base)), Graded("new", "set", rollouts(new))]
    [note] = verdicts(compare(runs))
    assert not note.warns and "on no level and not overall" in note.text
    assert note.text.endswith("-7.5 points (level 2)")
    assert verdicts(compare(runs[:1])) == []


def test_columns_that_say_nothing_are_left_out():
    single = compare([Graded("only", "set", simple([1], "c"))], resamples=10)
    first, second = cells(markdown(single, {}))
    assert first[0] == ["level", "model", "accuracy %", "tokens", "cut off %"]
    assert second[0] == ["level", "model", "if right", "if wrong", "outcome efficiency %"]
    assert len(first) == len(second) == 3
    several = compare([Graded("only", "set", rollouts([row("a", 1, "wrong", sample=s) for s in range(4)]))])
    heading = cells(markdown(several, {}))[0][0]
    assert "pass@4 %" in heading and "accuracy % (avg@4)" in heading
    ragged = rollouts([row(problem, 1, "wrong", sample=s) for problem, n in (("a", 4), ("b", 2)) for s in range(n)])
    assert "accuracy %" in cells(markdown(compare([Graded("only", "set", ragged)]), {}))[0][0]


def test_names_from_outside_stay_in_their_cell(capsys):
    text = markdown(results("a|b\n<img src=x>`[x]"), {"set": [Note("<b>\n- `x`")]})
    assert all(len(line) == 8 for table in cells(text.replace("\\|", "")) for line in table)
    assert "a\\|b \\<img src=x\\>" in text and "- \\<b\\> - \\`x\\`" in text.splitlines()
    show(results("[bold red]x[/]"), {"set": [Note("[bold]y[/]")]})
    out = capsys.readouterr().out
    assert "[bold red]x[/]" in out and "[bold]y[/]" in out


def test_formats():
    assert percent(Interval(0.7125, 0.69, 0.734)) == "71.2 [69.0,73.4]"
    assert percent(Interval(0.021, -0.003, 0.044), signed=True) == "+2.1 [-0.3,+4.4]"
    assert score(Interval(0.58, 0.51, 0.64)) == "0.58 [0.51,0.64]"
    assert percent(Interval(float("nan"), 0, 0)) == score(Interval(float("nan"), 0, 0)) == "n/a"
