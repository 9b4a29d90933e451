import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thaw import parquet

TABLE = pa.table({"path": ["a.png", "b.png"], "labels": [["ok"], []], "width": [48, None]})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    pq.write_table(TABLE, tmp_path / "table.parquet")
    return tmp_path / "table.parquet"


def test_a_table_is_read_whole_or_by_column(file: Path) -> None:
    assert parquet.read_table(file).equals(TABLE)
    assert parquet.read_table(file, ["width", "path"]).to_pydict() == {"width": [48, None], "path": ["a.png", "b.png"]}


def test_what_is_no_parquet_file_is_an_error_of_arrow_or_the_system(file: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        parquet.read_table(tmp_path / "missing.parquet")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(pa.ArrowException):
        parquet.read_table(file)


def test_no_other_module_reads_parquet_files() -> None:
    reads = re.compile(r"pq\.read_table|BufferReader")
    sources = Path(parquet.__file__).parent.rglob("*.py")
    readers = {file.name for file in sources if reads.search(file.read_text())}
    assert readers <= {"parquet.py"}
