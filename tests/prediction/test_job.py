import csv
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.full_disk import files_of_at_most
from tests.in_use import on_windows
from thaw.bundle import digest_of
from thaw.classifier.classifier import Classifier
from thaw.errors import DataError, RecipeError, ThawError, WriteError
from thaw.pipeline import load
from thaw.prediction import job as predictions
from thaw.prediction.inputs import files_at
from thaw.prediction.job import PredictJob, Shard, write_predictions
from thaw.prediction.partial_file import PartialFile, RowsDone
from thaw.progress import NullReporter, OnProgress
from thaw.run_folder import RunFolder

DRIVER = Path(__file__).with_name("killed_predictions.py")
COMMAND = [sys.executable, "-c", "from thaw.cli import main; main()", "predict"]
DAMAGED = 5


class Listener(NullReporter):
    """Records messages and progress."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.moves: list[tuple[int, int]] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def bar(self, title: str) -> OnProgress:
        return lambda done, total: self.moves.append((done, total))


@pytest.fixture(scope="module")
def classifier(trained: RunFolder) -> Classifier:
    return load(trained.path)


@pytest.fixture
def photos(images: Path, tmp_path: Path) -> Path:
    """36 images in three folders, one of them damaged."""
    folder = Path(shutil.copytree(images, tmp_path / "photos"))
    list(files_at([folder]))[DAMAGED].write_bytes(b"damaged")
    return folder


def write(
    classifier: Classifier, job: PredictJob, bundle: str = "bundle", reporter: NullReporter | None = None
) -> tuple[int, int]:
    return write_predictions(classifier, bundle, job, job.inputs[0].parent / "cache", reporter or NullReporter())


def rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))


def hidden(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.name.startswith("."))


@pytest.fixture
def interrupted(photos: Path, tmp_path: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> PredictJob:
    """A job that was killed after 24 of 36 rows, in blocks of 8, while it was writing another block."""
    monkeypatch.setattr(predictions, "BLOCK", 8)
    job = PredictJob((photos,), tmp_path / "results.csv")
    with pytest.MonkeyPatch.context() as patch:
        append = PartialFile.append

        def dying(self: PartialFile, block: bytes, done: RowsDone) -> None:
            append(self, block, done)
            if done.rows == 24:
                raise KeyboardInterrupt

        patch.setattr(PartialFile, "append", dying)
        with pytest.raises(KeyboardInterrupt):
            write(classifier, job)
    with (tmp_path / ".results.csv.partial").open("ab") as stream:
        stream.write(b"photos/damaged,o")
    assert not job.out.exists()
    return job


def test_every_image_has_a_row_in_order_and_unreadable_ones_have_a_reason(
    classifier: Classifier, photos: Path, tmp_path: Path
) -> None:
    assert write(classifier, PredictJob((photos,), tmp_path / "a.csv")) == (35, 1)
    found = rows(tmp_path / "a.csv")
    assert [row["path"] for row in found] == [str(file) for file in files_at([photos])]
    assert list(found[0]) == [
        "path",
        "status",
        "reason",
        "label",
        "review",
        "confidence",
        "p_ok",
        "p_scratch",
        "p_stain",
    ]
    assert found[DAMAGED]["status"] == "error" and found[DAMAGED]["reason"] and not found[DAMAGED]["p_ok"]
    assert not hidden(tmp_path)


def test_folders_that_thaw_wrote_get_no_rows_and_are_named(
    classifier: Classifier, photos: Path, trained: RunFolder, tmp_path: Path
) -> None:
    shutil.copytree(trained.path, photos / "runs" / "train-1")
    listener = Listener()
    assert write(classifier, PredictJob((photos,), tmp_path / "a.csv"), reporter=listener) == (35, 1)
    assert f"{photos}: left out 1 folder written by Thaw: runs/train-1" in listener.lines
    with pytest.raises(DataError, match="no image in this folder; left out 1 folder written by Thaw: train-1"):
        list(PredictJob((photos / "runs",)).files())


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_pipe_and_a_name_that_is_not_utf8_are_rows_with_a_reason_and_stop_nothing(
    name: str, classifier: Classifier, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("needs pipes with names")
    os.mkfifo(photos / "stain" / "pipe.png")
    try:
        shutil.copy(photos / "stain/001.png", os.fsencode(photos) + b"/stain/b\xe9.png")
    except OSError:
        pytest.skip("this file system has no such names")
    (photos / "notes.txt").touch()
    monkeypatch.setattr(predictions, "BLOCK", 8)
    listener = Listener()
    job = PredictJob((photos,), tmp_path / name)
    assert write(classifier, job, reporter=listener) == (35, 3)
    found = pq.read_table(job.out).to_pylist() if name == "a.parquet" else rows(job.out)
    reasons = {Path(row["path"]).name: row["reason"] for row in found if row["status"] == "error"}
    assert reasons.pop("pipe.png") == "a pipe, not a file"
    assert reasons.pop("b\\xe9.png") == "the file name is not valid UTF-8; rename it"
    assert len(reasons) == 1 and len(found) == 38
    assert listener.lines[0] == f"left out 1 file: 1 .txt ({photos / 'notes.txt'})"


def test_parquet_has_the_values_of_csv_and_null_for_empty_cells(
    classifier: Classifier, photos: Path, tmp_path: Path
) -> None:
    write(classifier, PredictJob((photos,), tmp_path / "a.csv"))
    assert write(classifier, PredictJob((photos,), tmp_path / "a.parquet")) == (35, 1)
    assert hidden(tmp_path) == []
    table = pq.read_table(tmp_path / "a.parquet")
    for row, expected in zip(table.to_pylist(), rows(tmp_path / "a.csv"), strict=True):
        assert list(row) == list(expected)
        for name, value in row.items():
            assert (f"{value:.6f}" if isinstance(value, float) else value or "") == expected[name]
    assert table["p_ok"].null_count == table["label"].null_count == 1


def test_a_large_parquet_file_has_several_row_groups(
    classifier: Classifier, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "BLOCK", 8)
    monkeypatch.setattr("thaw.prediction.table.ROW_GROUP", 16)
    write(classifier, PredictJob((photos,), tmp_path / "a.parquet"))
    file = pq.ParquetFile(tmp_path / "a.parquet")
    assert [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)] == [16, 16, 4]


@given(total=st.integers(0, 200), count=st.integers(1, 40))
def test_shards_partition_the_images(total: int, count: int) -> None:
    files = [Path(str(number)) for number in range(total)]
    taken = [list(Shard.parse(f"{index}/{count}").of(files)) for index in range(1, count + 1)]
    assert sorted((file for part in taken for file in part), key=lambda file: int(file.name)) == files
    assert max(map(len, taken)) - min(map(len, taken)) <= 1


@pytest.mark.parametrize("count", [3, 50])
def test_the_tables_of_all_shards_together_equal_the_whole_table(
    count: int, classifier: Classifier, photos: Path, tmp_path: Path
) -> None:
    write(classifier, PredictJob((photos,), tmp_path / "whole.csv"))
    parts = []
    for index in range(1, count + 1):
        write(classifier, PredictJob((photos,), tmp_path / f"{index}.csv", Shard(index, count)))
        parts.append(rows(tmp_path / f"{index}.csv"))
        assert (tmp_path / f"{index}.csv").read_text().startswith("path,status")
    together = {row["path"]: row for part in parts for row in part}
    whole = rows(tmp_path / "whole.csv")
    assert sum(map(len, parts)) == len(together) == len(whole)
    for row in whole:
        assert together[row["path"]]["label"] == row["label"]


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "-1/3", "a/b", "1/3/5", ""])
def test_an_invalid_shard_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="from 1 to N"):
        Shard.parse(text)


OFTEN = [pytest.mark.slow, pytest.mark.ci]


@pytest.mark.parametrize(
    ("name", "stride"),
    [
        ("results.csv", 17),
        pytest.param("results.csv", 7, marks=OFTEN),
        pytest.param("results.parquet", 16, marks=OFTEN),
    ],
)
def test_a_job_that_was_killed_repeatedly_gives_the_same_file_byte_for_byte(
    name: str, stride: int, trained: RunFolder, photos: Path, tmp_path: Path
) -> None:
    command = [sys.executable, str(DRIVER), str(trained.model), str(photos), str(tmp_path / "jobs"), name, str(stride)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)["outcomes"]
    whole = (tmp_path / "jobs" / "whole" / name).read_bytes()
    assert len(outcomes) >= 2 and max(outcome["deaths"] for outcome in outcomes) >= 3
    for outcome in outcomes:
        assert outcome["code"] == 0 and outcome["left"] == [name], outcome
        assert (tmp_path / "jobs" / f"every-{outcome['every']}" / name).read_bytes() == whole, outcome


@pytest.mark.slow
def test_the_command_resumes_after_being_killed(trained: RunFolder, photos: Path, tmp_path: Path) -> None:
    for number in range(60):
        shutil.copytree(photos / "stain", photos / f"more{number}")
    words = [str(trained.path), str(photos)]
    subprocess.run([*COMMAND, *words, "--out", str(tmp_path / "whole.csv")], check=True, capture_output=True)
    out, record = tmp_path / "killed.csv", tmp_path / ".killed.csv.partial.json"
    for _ in range(2):
        before = record.read_bytes() if record.exists() else b""
        with subprocess.Popen([*COMMAND, *words, "--out", str(out)], stderr=subprocess.DEVNULL) as process:
            while not record.exists() or record.read_bytes() == before or b'"rows": 0' in record.read_bytes():
                assert process.poll() is None
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
        assert not out.exists() and record.exists()
    last = subprocess.run([*COMMAND, *words, "--out", str(out)], check=True, capture_output=True, text=True)
    assert re.search(r"resuming after [\d,]+ of 756 images", last.stderr)
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes() and not hidden(tmp_path)


def test_a_resumed_job_reports_it_and_counts_all_rows(interrupted: PredictJob, classifier: Classifier) -> None:
    listener = Listener()
    assert write(classifier, interrupted, reporter=listener) == (35, 1)
    assert listener.lines[0] == f"{interrupted.out}: resuming after 24 of 36 images"
    assert listener.lines[1].startswith("engine pytorch-fp32 on cpu: the engine that this file was begun with")
    assert listener.moves[0] == (24, 36) and listener.moves[-1] == (36, 36)
    whole = interrupted.out.with_name("whole.csv")
    write(classifier, PredictJob(interrupted.inputs, whole))
    assert interrupted.out.read_bytes() == whole.read_bytes() and not hidden(interrupted.out.parent)


def test_a_resumed_job_keeps_its_engine(interrupted: PredictJob, classifier: Classifier) -> None:
    record = interrupted.out.with_name(".results.csv.partial.json")
    record.write_text(record.read_text().replace('"pytorch-fp32"', '"openvino-fp32"'))
    listener = Listener()
    write(classifier, interrupted, reporter=listener)
    assert "engine openvino-fp32 on cpu: the engine that this file was begun with" in listener.lines


def test_rows_of_different_jobs_are_never_mixed(interrupted: PredictJob, classifier: Classifier) -> None:
    partial = interrupted.out.with_name(".results.csv.partial")
    before = partial.read_bytes()
    others = {
        "shard, engine": PredictJob(interrupted.inputs, interrupted.out, Shard(1, 2), "openvino-fp32"),
        "images": PredictJob((interrupted.inputs[0] / "ok",), interrupted.out),
    }
    for what, job in others.items():
        with pytest.raises(DataError, match=rf"24 rows of another job \(different {what}\)"):
            write(classifier, job)
    with pytest.raises(DataError, match=r"\(different bundle\)"):
        write(classifier, interrupted, bundle="another")
    assert partial.read_bytes() == before
    assert write(classifier, interrupted) == (35, 1)


@pytest.mark.parametrize("change", ["renamed", "removed", "changed"])
def test_changes_among_classified_images_are_detected(
    change: str, interrupted: PredictJob, classifier: Classifier
) -> None:
    image = interrupted.inputs[0] / "ok" / "000.png"
    if change == "renamed":
        image.rename(image.with_name("new.png"))
    elif change == "removed":
        image.unlink()
    else:
        image.write_bytes(image.with_name("001.png").read_bytes())
    with pytest.raises(DataError, match="added, removed, renamed or changed among the 24"):
        write(classifier, interrupted)


def test_images_added_after_the_classified_ones_are_classified(interrupted: PredictJob, classifier: Classifier) -> None:
    shutil.copy(interrupted.inputs[0] / "ok" / "000.png", interrupted.inputs[0] / "zzz.png")
    assert write(classifier, interrupted) == (36, 1)
    assert Path(rows(interrupted.out)[-1]["path"]).name == "zzz.png"


def test_a_record_without_its_rows_starts_again(interrupted: PredictJob, classifier: Classifier) -> None:
    partial = interrupted.out.with_name(".results.csv.partial")
    partial.write_bytes(partial.read_bytes()[:40])
    listener = Listener()
    assert write(classifier, interrupted, reporter=listener) == (35, 1)
    assert not any("resuming" in line for line in listener.lines) and len(rows(interrupted.out)) == 36


def test_rows_without_a_record_are_discarded(classifier: Classifier, photos: Path, tmp_path: Path) -> None:
    (tmp_path / ".a.csv.partial").write_bytes(b"x" * 100_000)
    (tmp_path / ".a.csv.partial.json").write_text("{")
    assert write(classifier, PredictJob((photos,), tmp_path / "a.csv")) == (35, 1)
    assert len(rows(tmp_path / "a.csv")) == 36 and b"x" * 100 not in (tmp_path / "a.csv").read_bytes()


def test_two_processes_cannot_write_the_same_file(interrupted: PredictJob, classifier: Classifier) -> None:
    fcntl = pytest.importorskip("fcntl")
    with interrupted.out.with_name(".results.csv.partial").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process is writing it"):
            write(classifier, interrupted)
    assert write(classifier, interrupted) == (35, 1)


def test_a_full_disk_is_reported_and_the_job_can_be_resumed(
    photos: Path, classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "BLOCK", 8)
    job = PredictJob((photos,), tmp_path / "a.csv")
    sentence = r"a\.csv: cannot be written: the file is larger .*, then re-run the command to resume"
    with files_of_at_most(3000), pytest.raises(WriteError, match=sentence):
        write(classifier, job)
    listener = Listener()
    assert write(classifier, job, reporter=listener) == (35, 1)
    assert "resuming after" in listener.lines[0]
    write(classifier, PredictJob((photos,), tmp_path / "b.csv"))
    assert job.out.read_bytes() == (tmp_path / "b.csv").read_bytes()


@pytest.mark.parametrize(
    ("place", "out", "expected"),
    [
        ("empty", "a.csv", "no image in this folder"),
        ("nowhere", "a.csv", "no such file or folder"),
        ("photos", "no/such/a.csv", "there is no folder .*no/such"),
        ("photos", "folder.csv", r"folder\.csv: already exists \(a folder\)"),
        ("photos", "link.csv", r"link\.csv: already exists \(a link to nowhere\)"),
        ("photos", "pipe.csv", r"pipe\.csv: already exists \(a device, pipe or socket\)"),
        ("photos", "a.xlsx", r"a\.xlsx: predictions are written as \.csv or \.parquet"),
        ("photos", "a", r"a: predictions are written as \.csv or \.parquet"),
    ],
)
def test_an_error_leaves_no_files_behind(
    place: str, out: str, expected: str, classifier: Classifier, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "link.csv").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(ThawError, match=expected):
        write(classifier, PredictJob((photos, tmp_path / place), tmp_path / out))
    assert not hidden(tmp_path) and not (tmp_path / "a.csv").exists()
    assert (tmp_path / "link.csv").is_symlink() and not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", ["labels.csv", "labels.parquet", "image.csv", "corrected.csv", "empty.csv"])
def test_a_file_that_is_no_table_of_predictions_stays(name: str, classifier: Classifier, photos: Path) -> None:
    file = photos.parent / name
    own = "path,status,reason,label,review,confidence,p_ok,p_scratch,p_stain"
    content = {
        "labels.csv": b"path,label\na.png,ok\n",
        "image.csv": next(photos.rglob("*.png")).read_bytes(),
        "corrected.csv": f"{own},true label\na.png,ok,,ok,,0.9,0.9,0.1,0.0,stain\n".encode(),
        "empty.csv": b"",
    }
    if name == "labels.parquet":
        pq.write_table(pa.table({"path": ["a.png"], "label": ["ok"]}), file)
    else:
        file.write_bytes(content[name])
    before = file.read_bytes()
    with pytest.raises(WriteError, match="already exists and is not a table of predictions"):
        write(classifier, PredictJob((photos,), file))
    assert file.read_bytes() == before and not hidden(photos.parent)


@pytest.mark.parametrize("name", ["a.csv", "a.PARQUET"])
def test_a_table_of_predictions_is_replaced(name: str, classifier: Classifier, photos: Path) -> None:
    job = PredictJob((photos / "ok",), photos.parent / name)
    write(classifier, job)
    before = job.out.read_bytes()
    write(classifier, PredictJob((photos / "stain",), job.out))
    after = job.out.read_bytes()
    write(classifier, job)
    assert job.out.read_bytes() == before != after


def test_a_table_that_is_open_in_excel_is_refused_before_any_image_is_classified(
    classifier: Classifier, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = PredictJob((photos / "ok",), photos.parent / "a.csv")
    write(classifier, job)
    before = job.out.read_bytes()
    on_windows(monkeypatch, lambda path: path == job.out)
    with pytest.raises(WriteError, match=r"a\.csv: is open in another program, such as Excel; close it there"):
        write(classifier, PredictJob((photos / "stain",), job.out))
    assert job.out.read_bytes() == before and not hidden(photos.parent)


def test_a_table_that_is_opened_in_excel_meanwhile_is_written_once_it_is_closed(
    classifier: Classifier, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, opened, append = PredictJob((photos / "ok",), photos.parent / "a.csv"), set[Path](), PartialFile.append
    write(classifier, PredictJob((photos / "stain",), job.out))

    def meanwhile(self: PartialFile, block: bytes, done: RowsDone) -> None:
        append(self, block, done)
        opened.add(job.out)

    on_windows(monkeypatch, lambda path: path in opened)
    monkeypatch.setattr(PartialFile, "append", meanwhile)
    with pytest.raises(WriteError, match=r"a\.csv: is open in another program.* then re-run the command to resume"):
        write(classifier, job)
    opened.clear()
    listener = Listener()
    write(classifier, job, reporter=listener)
    assert "resuming after 12" in listener.lines[0] and len(rows(job.out)) == 12


def test_a_file_that_appeared_while_predicting_stays_and_the_rows_are_kept(
    classifier: Classifier, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, append = PredictJob((photos / "ok",), photos.parent / "a.csv"), PartialFile.append

    def meanwhile(self: PartialFile, block: bytes, done: RowsDone) -> None:
        append(self, block, done)
        job.out.write_text("mine")

    with monkeypatch.context() as patch, pytest.raises(WriteError, match="already exists"):
        patch.setattr(PartialFile, "append", meanwhile)
        write(classifier, job)
    assert job.out.read_text() == "mine"
    job.out.unlink()
    listener = Listener()
    write(classifier, job, reporter=listener)
    assert "resuming after 12" in listener.lines[0] and len(rows(job.out)) == 12


def test_a_link_in_the_place_of_the_partial_file_is_not_followed(classifier: Classifier, photos: Path) -> None:
    mine = photos.parent / "mine.txt"
    mine.write_text("mine")
    (photos.parent / ".a.csv.partial").symlink_to(mine)
    with pytest.raises(WriteError, match=r"\.a\.csv\.partial: already exists \(a link to"):
        write(classifier, PredictJob((photos,), photos.parent / "a.csv"))
    assert mine.read_text() == "mine"


def test_progress_is_shown_on_the_terminal_while_rows_go_to_a_pipe(trained: RunFolder, images: Path) -> None:
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, str(trained.path), str(images)],
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
        env=os.environ | {"TERM": "xterm"},
    )
    os.close(terminal)
    shown = b""
    while chunk := _read(master):
        shown += chunk
    out, _ = process.communicate()
    os.close(master)
    assert process.returncode == 0
    assert len(list(csv.DictReader(out.splitlines()))) == 36 and "\x1b" not in out
    assert b"predict" in shown and b"36/36" in shown and b"engine pytorch-fp32" in shown
    assert b"36 images classified, 0 could not be read" in shown


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def test_the_digest_of_a_bundle_changes_with_the_bundle(trained: RunFolder, tmp_path: Path) -> None:
    other = tmp_path / "bundle"
    shutil.copytree(trained.model, other)
    assert digest_of(other) == digest_of(trained.model)
    (other / "SHA256SUMS").write_text((other / "SHA256SUMS").read_text().replace("0", "1"))
    assert digest_of(other) != digest_of(trained.model)
