import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.full_disk import files_of_at_most
from tests.studio.projects import rows
from thaw.errors import DataError, WriteError
from thaw.studio.images import Images
from thaw.studio.labels import Conflict, Labels
from thaw.studio.marks import EXCLUDED, UNLABELLED, Mark, checked_name

IMAGES = rows(5, ["ok", None, "ok", "bad", None])
CRACK = Mark("crack")

marks = st.sampled_from([Mark("ok"), Mark("bad"), CRACK, UNLABELLED, EXCLUDED])
edits = st.tuples(st.sets(st.integers(0, 4), min_size=1), marks)


Open = Callable[[Images], Labels]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens the labels of some images in the same file, and closes them at the end."""
    with ExitStack() as stack:
        yield lambda images: stack.enter_context(closing(Labels(images, tmp_path / "labels.jsonl")))


@settings(max_examples=25)
@given(st.lists(st.one_of(edits, st.just("undo"), st.just("reopen")), max_size=12))
def test_labels_are_those_of_the_images_then_every_change_in_order(steps: list) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "labels.jsonl"
        labels = Labels(IMAGES, file)
        expected, history = [Mark(label) for label in IMAGES.labels], []
        for step in steps:
            if step == "reopen":
                labels.close()
                labels = Labels(IMAGES, file)
            elif step == "undo":
                if last := labels.last_edit:
                    labels.undo(last.number)
                    expected = history.pop()
            else:
                chosen, after = step
                if labels.edit({row: expected[row] for row in chosen}, after):
                    history.append(list(expected))
                    for row in chosen:
                        expected[row] = after
            assert labels.marks() == expected and bool(labels.last_edit) == bool(history)
        labels.close()


def test_every_change_is_a_line_with_image_path_marks_time_and_user(tmp_path: Path, opened: Open) -> None:
    labels = opened(IMAGES)
    labels.edit({0: Mark("ok"), 1: UNLABELLED}, CRACK)
    labels.undo(1)
    lines = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["path"], line["from"], line["to"]) for line in lines] == [
        ("image0.png", "ok", "crack"),
        ("image1.png", None, "crack"),
        ("image0.png", "crack", "ok"),
        ("image1.png", "crack", None),
    ]
    assert lines[0]["image"] == IMAGES.digests[0] and lines[0]["by"] and lines[0]["when"][:2] == "20"
    assert [line.get("undoes") for line in lines] == [None, None, 1, 1]


def test_an_edit_of_an_image_that_was_changed_meanwhile_changes_nothing(opened: Open) -> None:
    labels = opened(IMAGES)
    labels.edit({0: Mark("ok")}, CRACK)
    with pytest.raises(Conflict) as conflict:
        labels.edit({0: Mark("ok"), 1: UNLABELLED}, EXCLUDED)
    assert conflict.value.present == {0: CRACK, 1: UNLABELLED}
    assert labels.marks()[:2] == [CRACK, UNLABELLED]
    with pytest.raises(Conflict):
        labels.undo(2)


def test_an_edit_that_changes_nothing_is_not_written(tmp_path: Path, opened: Open) -> None:
    labels = opened(IMAGES)
    assert labels.edit({0: Mark("ok")}, Mark("ok")) is None
    assert not (tmp_path / "labels.jsonl").read_bytes()


@pytest.mark.parametrize("torn", [b'{"edit": 2', b'{"edit": 2}', b"\xff\xfe", b"\0\0\0\0"])
def test_a_torn_last_line_is_ignored_and_swallows_no_other(tmp_path: Path, opened: Open, torn: bytes) -> None:
    file = tmp_path / "labels.jsonl"
    labels = opened(IMAGES)
    labels.edit({0: Mark("ok")}, CRACK)
    labels.close()
    with file.open("ab") as stream:
        stream.write(torn)
    labels = opened(IMAGES)
    labels.edit({1: UNLABELLED}, EXCLUDED)
    labels.close()
    assert opened(IMAGES).marks()[:2] == [CRACK, EXCLUDED]


@pytest.mark.parametrize("to", ['"\\ud800"', '"a\\nb"', "1", "{}", "[]", '""'])
def test_a_line_with_what_is_no_label_is_named(tmp_path: Path, opened: Open, to: str) -> None:
    values = '"image": "", "path": "", "from": null, "when": "2026-01-01T00:00:00+00:00", "by": ""'
    (tmp_path / "labels.jsonl").write_text(f'{{"edit": 1, {values}, "to": {to}}}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"labels\.jsonl: line 1 is"):
        opened(IMAGES)


def test_once_the_file_is_no_longer_in_its_place_no_label_is_accepted(tmp_path: Path, opened: Open) -> None:
    file = tmp_path / "labels.jsonl"
    labels = opened(IMAGES)
    labels.edit({0: Mark("ok")}, CRACK)
    file.rename(tmp_path / "moved")
    for replaced in (False, True):
        if replaced:
            file.write_bytes((tmp_path / "moved").read_bytes())
        with pytest.raises(WriteError, match="removed or replaced while Studio is open"):
            labels.edit({1: UNLABELLED}, CRACK)
        assert labels.mark(1) == UNLABELLED
    (tmp_path / "moved").replace(file)
    assert labels.edit({1: UNLABELLED}, CRACK)


def test_on_a_full_disk_no_label_is_accepted_and_none_is_torn(tmp_path: Path, opened: Open) -> None:
    labels = opened(IMAGES)
    labels.edit({0: Mark("ok")}, CRACK)
    with (
        files_of_at_most((tmp_path / "labels.jsonl").stat().st_size + 20),
        pytest.raises(WriteError, match="larger than"),
    ):
        labels.edit({1: UNLABELLED}, CRACK)
    assert labels.mark(1) == UNLABELLED and labels.edit({4: UNLABELLED}, CRACK)
    labels.close()
    assert opened(IMAGES).marks() == [CRACK, UNLABELLED, Mark("ok"), Mark("bad"), CRACK]


def test_a_change_of_an_image_that_cannot_be_read_is_not_one_of_others(opened: Open) -> None:
    def unreadable(*paths: str) -> Images:
        return Images(rows(len(paths), paths=paths).manifest, ("no such file",) * len(paths))

    labels = opened(unreadable("a.png", "b.png"))
    labels.edit({0: UNLABELLED}, EXCLUDED)
    labels.close()
    assert opened(unreadable("b.png", "c.png")).marks() == [UNLABELLED, UNLABELLED]


@pytest.mark.parametrize("damaged", ["{", "[]", "{}", '{"edit": "x"}', '{"edit": 1e999}', "null", "[" * 100_000])
def test_a_damaged_line_is_named(tmp_path: Path, opened: Open, damaged: str) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text(f"{damaged}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"labels\.jsonl: line 1 is"):
        opened(IMAGES)


def test_two_processes_do_not_write_the_same_labels(opened: Open) -> None:
    opened(IMAGES)
    with pytest.raises(DataError, match="open in another process"):
        opened(IMAGES)


def test_a_label_follows_an_image_that_was_renamed(opened: Open) -> None:
    before = rows(2, contents=["one", "two"], paths=["a.png", "b.png"])
    labels = opened(before)
    labels.edit({0: UNLABELLED}, CRACK)
    labels.close()
    after = rows(3, contents=["two", "one", "new"], paths=["b.png", "c.png", "a.png"])
    assert opened(after).marks() == [UNLABELLED, CRACK, UNLABELLED]


def test_a_label_of_an_image_that_is_gone_is_reported(opened: Open) -> None:
    labels = opened(rows(2))
    labels.edit({0: UNLABELLED, 1: UNLABELLED}, CRACK)
    labels.close()
    reopened = opened(rows(1, paths=["image1.png"]))
    assert reopened.notes == ("1 image with a change of the label no longer there, for example image0.png",)
    assert reopened.marks() == [CRACK]


def test_a_label_of_one_of_two_equal_images_is_not_that_of_the_other(opened: Open) -> None:
    equal = rows(2, contents=["one", "one"], paths=["a.png", "b.png"])
    labels = opened(equal)
    labels.edit({0: UNLABELLED}, CRACK)
    labels.close()
    assert opened(equal).marks() == [CRACK, UNLABELLED]


def test_a_new_class_comes_after_the_others_and_keeps_its_place(opened: Open) -> None:
    labels = opened(IMAGES)
    labels.edit({0: Mark("ok")}, Mark("zebra"))
    labels.edit({1: UNLABELLED}, Mark("a"))
    assert labels.classes == ("bad", "ok", "zebra", "a")
    labels.close()
    assert opened(IMAGES).classes == ("bad", "ok", "zebra", "a")


def test_a_new_class_that_no_image_has_is_gone_when_the_project_is_opened_again(opened: Open) -> None:
    labels = opened(IMAGES)
    labels.edit({0: Mark("ok"), 2: Mark("ok")}, Mark("crakc"))
    labels.edit({0: Mark("crakc"), 2: Mark("crakc")}, CRACK)
    assert labels.classes == ("bad", "ok", "crakc", "crack")
    labels.close()
    assert opened(IMAGES).classes == ("bad", "ok", "crack")


@pytest.mark.parametrize(
    "name",
    ["", "  ", "\u200b", "\U000e0041\u2060", "a|b", "a\nb", "OK", "o\u200bk", "x" * 101, "1.0", "-3.00", "['a']"],
)
def test_what_cannot_name_a_class_is_refused(name: str) -> None:
    with pytest.raises(DataError):
        checked_name(name, ("ok",))


def test_of_an_edit_that_was_cut_off_nothing_is_kept(tmp_path: Path, opened: Open) -> None:
    labels = opened(rows(3))
    labels.edit({0: UNLABELLED}, CRACK)
    labels.edit({1: UNLABELLED, 2: UNLABELLED}, EXCLUDED)
    labels.close()
    file = tmp_path / "labels.jsonl"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))
    reopened = opened(rows(3))
    assert reopened.marks() == [CRACK, UNLABELLED, UNLABELLED]
    reopened.edit({1: UNLABELLED}, CRACK)
    reopened.close()
    assert opened(rows(3)).marks() == [CRACK, CRACK, UNLABELLED]


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_killed_at_any_moment_no_acknowledged_label_is_lost_and_none_invented(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tests.studio.killed_writers", str(tmp_path), "20"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert not done.returncode, done.stderr
    assert int(done.stdout) > 5
