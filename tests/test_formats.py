import pytest

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
    ("seconds", "text"), [(0.04, "0.0 s"), (9.51, "9.5 s"), (42, "42 s"), (720, "12 min"), (11_200, "3.1 h")]
)
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert formats.duration(seconds) == text


def test_long_lists_and_texts_are_shortened() -> None:
    assert formats.listed(["a", "b", "c"]) == "a, b, c"
    assert formats.listed(list("abcdef")) == "a, b, c and 3 more"
    assert formats.shortened("short") == "short"
    assert formats.shortened("abcdefghij", 7) == "abcd…ij"
