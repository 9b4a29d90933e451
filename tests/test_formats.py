import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import thaw
from tests.browsing import window
from thaw import formats


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (1_200, "1,200 images")]
)
def test_plurals_are_right(number: int, text: str) -> None:
    assert formats.count(number, "image") == text


def test_an_irregular_plural_is_given() -> None:
    assert formats.count(2, "class", "classes") == "2 classes"


def test_percentages_have_one_format() -> None:
    assert formats.percent(0.84777) == "84.8%"
    assert formats.interval(0.848, 0.718, 0.924) == "84.8% (71.8% to 92.4%)"
    assert formats.points(0.019) == "+1.9" and formats.points(-0.02) == "-2.0"


@pytest.mark.parametrize(
    ("fraction", "digits", "text"),
    [
        (0.0, 1, "0.0%"),
        (1.0, 1, "100.0%"),
        (1 - 1e-12, 1, "100.0%"),
        (4999 / 5000, 1, ">99.9%"),
        (1 / 5000, 1, "<0.1%"),
        (0.9994, 1, "99.9%"),
        (0.0006, 1, "0.1%"),
        (0.997, 0, ">99%"),
        (0.003, 0, "<1%"),
        (1 / 200, 0, "<1%"),
        (199 / 200, 0, ">99%"),
        (1999 / 2000, 1, ">99.9%"),
        (1 / 2000, 1, "<0.1%"),
        (1.0, 0, "100%"),
    ],
)
def test_only_what_is_perfect_reads_as_perfect(fraction: float, digits: int, text: str) -> None:
    assert formats.percent(fraction, digits) == text


def test_an_interval_of_one_miss_among_thousands_does_not_reach_100() -> None:
    assert formats.interval(4999 / 5000, 0.9989, 0.99996) == ">99.9% (99.9% to >99.9%)"


def test_pages_write_percentages_as_the_console_does(browser: Any) -> None:
    package = Path(thaw.__file__).parent
    source = (package / "html" / "templates" / "percent.js").read_text(encoding="utf-8")
    assert source.replace("\nfunction", "\nexport function") in (package / "studio" / "static" / "charts.js").read_text(
        encoding="utf-8"
    )
    values = [0.0, 1.0, 0.848, 0.99951, 0.997, 0.003, 1 - 1e-12, 0.0006]
    values += [one / total for total in (200, 2000, 5000) for one in (1, total - 1)]
    with window(browser, 300, 300) as opened:
        for digits in (0, 1):
            found = opened.page.evaluate(
                f"values => {{ {source}; return values.map(one => percent(one, {digits})) }}", values
            )
            assert found == [formats.percent(value, digits) for value in values]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.51, "9.5 s"), (42, "42 s"), (720, "12 min"), (11_200, "3.1 h")]
)
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert formats.duration(seconds) == text


def test_long_lists_and_texts_are_shortened() -> None:
    assert formats.listed(["a", "b", "c"]) == "a, b, c"
    assert formats.listed(list("abcdef")) == "a, b, c and 3 more"
    assert formats.shortened("short") == "short"
    assert formats.shortened("abcdefghij", 7) == "abcd…ij"


def test_a_command_to_paste_is_quoted_where_the_shell_needs_it() -> None:
    assert formats.command("thaw", "inspect", Path("runs/train-1")) == "thaw inspect runs/train-1"
    assert formats.command("thaw", "inspect", Path("my images")) == "thaw inspect 'my images'"


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        (r"C:\Bilder\Größe\1.png", r"C:\Bilder\Größe\1.png"),
        ("--seed=3", "--seed=3"),
        (r"my runs\train-1", r'"my runs\train-1"'),
        ("R&D", '"R&D"'),
        ("crack,pits", '"crack,pits"'),
        ("C:\\my images\\", '"C:\\my images\\\\"'),
        ('say "so"', r'"say \"so\""'),
        ("", '""'),
    ],
)
def test_on_windows_words_are_quoted_for_cmd_and_powershell(
    word: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "os", SimpleNamespace(name="nt", fspath=os.fspath))
    assert formats.command("thaw", "predict", word) == f"thaw predict {shown}"


def test_commands_are_quoted_nowhere_else() -> None:
    package = Path(thaw.__file__).parent
    assert [file.name for file in package.rglob("*.py") if "shlex" in file.read_text(encoding="utf-8")] == [
        "formats.py"
    ]
