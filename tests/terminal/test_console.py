import io

import pytest
from rich.text import Text

from tests.terminal.test_classes import evaluation
from thaw.terminal.classes import show_confusion
from thaw.terminal.console import ConsoleReporter, plain_console


def on_terminal(width: int) -> tuple[ConsoleReporter, io.StringIO]:
    stream = io.StringIO()
    return ConsoleReporter(plain_console(file=stream, force_terminal=True, width=width, color_system=None)), stream


@pytest.mark.parametrize("name", ["crack [deep]", "crack [/deep]", "defect:x:1", "[red]", "[link=x]", "\\[a]"])
def test_names_that_look_like_markup_or_emoji_are_printed_as_they_are(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter = ConsoleReporter()
    reporter.say(f"said {name}")
    reporter.table(f"title {name}", ("class", f"as {name}"), [(f"is {name}", "1")])
    said = capsys.readouterr().out
    assert all(text in said for text in (f"said {name}", f"title {name}", f"as {name}", f"is {name}"))


def test_the_title_of_a_bar_may_look_like_markup() -> None:
    reporter, stream = on_terminal(80)
    reporter.bar("phase [/deep] :x:")(1, 1)
    reporter.close()
    assert "phase [/deep] :x:" in Text.from_ansi(stream.getvalue()).plain


def test_a_table_in_a_pipe_is_as_wide_as_it_needs_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"{'x' * 38}{number}" for number in range(10, 22)]
    ConsoleReporter().table("", ("", *names), [(name, "1") for name in names])
    said = capsys.readouterr().out
    assert [said.count(name) for name in names] == [2] * 12


def test_a_narrow_terminal_shows_every_name_in_full() -> None:
    names = ["crack_on_the_left_side_1", "crack_on_the_left_side_2"]
    reporter, stream = on_terminal(30)
    reporter.table("", ("class", *names), [(name, "10", "20") for name in names])
    said = stream.getvalue()
    rows = [line[:10].rstrip() for line in said.splitlines()]
    assert "…" not in said and all(name in "".join(rows) for name in names)
    assert max(map(len, said.splitlines())) <= 30


def test_where_names_are_long_the_columns_of_a_confusion_matrix_have_the_numbers_of_its_rows() -> None:
    reporter, stream = on_terminal(80)
    show_confusion(evaluation(12, "scratch_on_the_surface_{}"), reporter)
    lines = stream.getvalue().splitlines()
    assert lines[2].split() == [f"{number}" for number in range(1, 13)]
    assert lines[3].startswith("1 scratch_on_the_surface_0 ") and max(map(len, lines)) <= 80
