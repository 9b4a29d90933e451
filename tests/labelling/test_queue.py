import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.errors import WriteError
from thaw.labelling.queue import COLUMNS, FailedImage, LabelQueue, QueuedImage

HOSTILE = [
    "plain.png",
    'a,b"c.png',
    "line\nbreak.png",
    "=cmd|' /C calc'!A0.png",
    "-1.png",
    "+x/=y.png",
    "@z.png",
    "\tt.png",
]


def queue(*paths: str, errors: tuple[FailedImage, ...] = ()) -> LabelQueue:
    images = tuple(QueuedImage(path, rank, rank, "typical", "ok", 0.5) for rank, path in enumerate(paths, start=1))
    return LabelQueue(Path("images"), images, errors, 0, len(paths), 0, "typical images", None)


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_every_column_is_there_and_errors_come_last() -> None:
    rows = read(queue("a.png", errors=(FailedImage("b.png", "truncated, sadly"),)).to_csv())
    assert tuple(rows[0]) == COLUMNS
    assert list(rows[0].values()) == ["a.png", "1", "1", "typical", "ok", "0.5000", ""]
    assert list(rows[1].values()) == ["b.png", "", "", "error", "", "", "truncated, sadly"]


@given(
    st.lists(
        st.one_of(
            st.sampled_from(HOSTILE),
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1),
        ),
        unique=True,
    )
)
def test_any_file_name_is_read_back_as_the_same_file_and_none_begins_a_formula(paths: list[str]) -> None:
    rows = read(queue(*paths, errors=tuple(FailedImage(path, "why") for path in paths)).to_csv())
    assert [Path(row["path"]) for row in rows] == [Path(path) for path in paths] * 2
    assert not any(row["path"][0] in "=+-@\t\r" for row in rows)


def test_a_queue_never_replaces_a_file(tmp_path: Path) -> None:
    file = tmp_path / "queue.csv"
    queue("a.png").write(file)
    written = file.read_bytes()
    with pytest.raises(WriteError, match="already exists"):
        queue("b.png").write(file)
    assert file.read_bytes() == written
    with pytest.raises(WriteError, match="there is no folder"):
        queue("a.png").write(tmp_path / "none" / "queue.csv")
