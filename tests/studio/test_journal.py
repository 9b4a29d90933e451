from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from thaw.studio.journal import Journal


def test_lines_of_several_threads_are_all_kept_whole(tmp_path: Path) -> None:
    file = tmp_path / "actions.jsonl"
    with closing(Journal(file)) as journal, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: journal.append([{"number": number, "text": "x" * 999}]), range(64)))
    with closing(Journal(file)) as journal:
        assert sorted(line["number"] for line in journal.lines) == list(range(64))


def test_lines_that_are_forgotten_stay_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "actions.jsonl"
    with closing(Journal(file)) as journal:
        journal.append([{"number": 1}])
    with closing(Journal(file)) as journal:
        journal.forget()
        journal.append([{"number": 2}])
        assert not journal.lines
    with closing(Journal(file)) as journal:
        assert [line["number"] for line in journal.lines] == [1, 2]
