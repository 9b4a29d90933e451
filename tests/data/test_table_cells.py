from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.data.table_cells import labels_of, path_of, text_of


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, ""),
        (float("nan"), ""),
        (" crack ", "crack"),
        (b"gr\xc3\xb6\xc3\x9fe", "größe"),
        ("fissure\N{COMBINING ACUTE ACCENT}", "fissur\N{LATIN SMALL LETTER E WITH ACUTE}"),
        (1, "1"),
        (1.0, "1"),
        ("1.0", "1"),
        ("-2.00", "-2"),
        ("01", "01"),
        ("1.50", "1.50"),
        ("v1.0", "v1.0"),
        (True, "True"),
    ],
)
def test_a_cell_is_text(cell: Any, text: str) -> None:
    assert text_of(cell) == text


@pytest.mark.parametrize(
    "cell",
    [{"name": "crack"}, [["crack"]], ["a", ["b"]], {"crack"}, date(2024, 1, 1), b"gr\xf6\xdfe", "\ud800", "a\0b"],
)
def test_other_cells_are_no_label(cell: Any) -> None:
    with pytest.raises(ValueError, match=r"neither text nor a number|not UTF-8 text|cannot be stored"):
        labels_of(cell, may_be_several=False)


@pytest.mark.parametrize("cell", ["['crack']", '["crack", "dent"]', "b'crack'", "{'a': 1}", "[]", "('a',)"])
def test_a_list_that_was_written_as_text_is_no_label(cell: str) -> None:
    with pytest.raises(ValueError, match=r"is a list or object as text; write labels as scratch\|dent"):
        labels_of(cell, may_be_several=False)


@pytest.mark.parametrize("cell", ["[good]", "(front) 'A' (back)", "it's", "b'", "100 %"])
def test_brackets_and_quotes_may_be_part_of_a_label(cell: str) -> None:
    assert labels_of(cell, may_be_several=False) == [cell]


def test_a_label_in_a_list_must_not_contain_the_separator() -> None:
    with pytest.raises(ValueError, match=r"the label 'a\|b' contains \|, which separates labels; rename it"):
        labels_of(["a|b", "c"], may_be_several=True)


@pytest.mark.parametrize("cell", ["crack,deep", "crack; deep", "crack|deep, wide"])
def test_another_separator_is_refused_only_where_there_may_be_several_labels(cell: str) -> None:
    with pytest.raises(ValueError, match=r"separate several labels by \|"):
        labels_of(cell, may_be_several=True)
    assert labels_of(cell, may_be_several=False) == cell.split("|")


@given(st.lists(st.text(min_size=1).filter(lambda text: "|" not in text)))
def test_a_list_and_its_text_are_the_same_labels(names: list[str]) -> None:
    try:
        in_list = labels_of(names, may_be_several=False)
    except ValueError:
        return
    if len(in_list) > 1:
        assert labels_of("|".join(names), may_be_several=False) == in_list


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (None, "the path is empty"),
        ("  ", "the path is empty"),
        (7, "the path 7 is not text"),
        ("C:\\data\\a.png", "is a path on Windows; write paths relative to the folder of the table"),
        ("d:/data/a.png", "is a path on Windows"),
        ("\\\\server\\share\\a.png", "is a path on Windows"),
        ("a\0.png", "cannot be stored"),
    ],
)
def test_what_is_no_path_here_is_refused(cell: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sep", "/")
    with pytest.raises(ValueError, match=message):
        path_of(cell)


def test_a_path_is_text_with_forward_slashes() -> None:
    assert path_of(" ./a//b.png ") == path_of(b"a/b.png") == "a/b.png"


@pytest.mark.parametrize("address", ["https://example.org/a.png", "s3://bucket/a.png", "file:///data/a.png"])
def test_an_address_stays_one(address: str) -> None:
    assert path_of(f" {address} ") == address
