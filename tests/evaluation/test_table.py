from made_rollouts import rollouts, row, simple

from o1p_jax.evaluation.scores import Interval
from o1p_jax.evaluation.summary import Graded, compare
from o1p_jax.evaluation.table import markdown, percent, score, show


def results(model="new"):
    base, new = (
        rollouts([row(f"p{i}", n * (i + 1), grade, level=str(i % 2 + 1)) for i, grade in enumerate(grades)])
        for n, grades in ((100, ["correct", "wrong"]), (50, ["correct", "correct"]))
    )
    return compare([Graded("base", "set", base), Graded(model, "set", new)], resamples=100)


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]


def test_markdown_holds_the_figures_overall_and_by_level():
    heading, rule, *body = cells(markdown(results()))
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


def test_terminal_table_holds_the_same_cells(capsys):
    show(results())
    text = capsys.readouterr().out
    assert text.startswith("set: 2 problems, one sample each; 95% bootstrap intervals in brackets")
    for line in cells(markdown(results()))[2:]:
        for cell in line[1:]:
            assert cell in text


def test_columns_that_say_nothing_are_left_out():
    single = compare([Graded("only", "set", simple([1], "c"))], resamples=10)
    assert cells(markdown(single))[0] == ["level", "model", "accuracy %", "tokens", "cut off %"]
    assert len(cells(markdown(single))) == 3
    several = compare([Graded("only", "set", rollouts([row("a", 1, "wrong", sample=s) for s in range(4)]))])
    assert "pass@4 %" in cells(markdown(several))[0]


def test_names_from_outside_stay_in_their_cell(capsys):
    text = markdown(results("a|b\n<img src=x>`[x]"))
    assert all(len(line) == 8 for line in cells(text.replace("\\|", "")))
    assert "a\\|b \\<img src=x\\>" in text
    show(results("[bold red]x[/]"))
    assert "[bold red]x[/]" in capsys.readouterr().out


def test_formats():
    assert percent(Interval(0.7125, 0.69, 0.734)) == "71.2 [69.0,73.4]"
    assert percent(Interval(0.021, -0.003, 0.044), signed=True) == "+2.1 [-0.3,+4.4]"
    assert score(Interval(0.58, 0.51, 0.64)) == "0.58 [0.51,0.64]"
    assert percent(Interval(float("nan"), 0, 0)) == score(Interval(float("nan"), 0, 0)) == "n/a"
