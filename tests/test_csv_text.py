import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from thaw.csv_text import csv_text

CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@given(st.lists(st.lists(CELLS, min_size=2, max_size=4), max_size=5))
def test_every_cell_is_read_as_it_was_written(rows: list[list[str]]) -> None:
    assert list(csv.reader(io.StringIO(csv_text(rows), newline=""))) == rows


def test_a_carriage_return_does_not_end_a_row() -> None:
    assert csv_text([("a\rb", 1, None)]) == '"a\rb","1",""\n'


def test_nothing_is_an_empty_cell_and_numbers_are_written_as_they_are() -> None:
    assert csv_text([("path", None, 0.5)]) == "path,,0.5\n"
