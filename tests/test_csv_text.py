import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.csv_text import csv_text, print_csv

CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@given(st.lists(st.lists(CELLS, min_size=2, max_size=4), max_size=5))
def test_every_cell_is_read_as_it_was_written(rows: list[list[str]]) -> None:
    assert list(csv.reader(io.StringIO(csv_text(rows), newline=""))) == rows


def test_a_carriage_return_does_not_end_a_row() -> None:
    assert csv_text([("a\rb", 1, None)]) == '"a\rb","1",""\n'


def test_nothing_is_an_empty_cell_and_numbers_are_written_as_they_are() -> None:
    assert csv_text([("path", None, 0.5)]) == "path,,0.5\n"


class Console(io.TextIOWrapper):
    """A terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        (io.TextIOWrapper, "path,label\nひ.png,Größe\n".encode()),
        (Console, b"path,label\r\n\\u3072.png,Gr\xf6\xdfe\r\n"),
    ],
)
def test_only_a_terminal_gets_a_table_in_the_encoding_of_the_system(
    kind: type[io.TextIOWrapper], written: bytes
) -> None:
    stream = kind(io.BytesIO(), encoding="cp1252", errors="backslashreplace", newline="\r\n")
    stream.write("path,")
    print_csv("label\nひ.png,Größe\n".encode(), stream)
    assert stream.buffer.getvalue() == written  # type: ignore[attr-defined]


def test_a_stream_without_bytes_gets_text() -> None:
    stream = io.StringIO()
    print_csv("Größe\n".encode(), stream)
    assert stream.getvalue() == "Größe\n"
