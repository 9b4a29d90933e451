import math
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.in_use import open_elsewhere
from thaw.errors import ResumeError
from thaw.metrics import MetricValues
from thaw.training import checkpoint
from thaw.training.checkpoint import Checkpoint, Progress
from thaw.training.gain import PhaseGain
from thaw.training.history import EpochRecord

RECORD = EpochRecord("head", 1, "head", 0.1, math.nan, MetricValues({"loss": 0.5, "accuracy": 0.25}), 2.5)


def state(value: float = 1.0, progress: Progress | None = None) -> Checkpoint:
    return Checkpoint(
        {"head.weight": torch.full((2, 3), value)}, progress or Progress(), {"head.weight/step": torch.tensor(4.0)}
    )


def test_a_checkpoint_is_read_back_unchanged(tmp_path: Path) -> None:
    progress = Progress(1, 3, 16, (RECORD,), ("a note",))
    checkpoint.write(tmp_path, "last", state(2.0, progress))
    read = checkpoint.read(tmp_path, "last")
    assert read is not None
    assert torch.equal(read.weights["head.weight"], torch.full((2, 3), 2.0))
    assert read.optimizer["head.weight/step"] == 4.0
    assert repr(read.progress) == repr(progress)


def test_gains_that_were_measured_on_one_or_two_splits_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gains = (PhaseGain("head", 2, 1.0, 0.5, None, 0.0, None, True), PhaseGain("top", 2, 1.0, 0.6, 0.5, 0.1, 0.05, True))
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "asdict", lambda gain: {**asdict(gain), "splits": 2})
        checkpoint.write(tmp_path, "last", state(progress=Progress(2, 0, None, (RECORD,), (), gains)))
    read = checkpoint.read(tmp_path, "last")
    assert read is not None and read.progress.gains == gains


def test_a_record_of_release_0_1_has_no_penalty() -> None:
    values = {**RECORD.to_json(), "lr": 0.5}
    del values["penalty"]
    record = EpochRecord.from_json(values)
    assert (record.lr, record.penalty) == (0.5, None)


def test_without_a_checkpoint_nothing_is_read(tmp_path: Path) -> None:
    assert checkpoint.read(tmp_path, "best") is None


def test_only_the_newest_checkpoint_of_a_name_is_kept(tmp_path: Path) -> None:
    for value in (1.0, 2.0, 3.0):
        checkpoint.write(tmp_path, "last", state(value))
    checkpoint.write(tmp_path, "best", state(9.0))
    assert len(list(tmp_path.glob("last-*.safetensors"))) == 1
    read = checkpoint.read(tmp_path, "last")
    assert read is not None and read.weights["head.weight"][0, 0] == 3.0


def test_on_windows_an_old_checkpoint_that_is_being_read_is_removed_with_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = os.unlink

    def unlink_unless_read(path: Path) -> None:
        if path.suffix == ".safetensors":
            raise open_elsewhere()
        unlink(path)

    checkpoint.write(tmp_path, "last", state(1.0))
    with monkeypatch.context() as scanned:
        scanned.setattr(os, "unlink", unlink_unless_read)
        checkpoint.write(tmp_path, "last", state(2.0))
    assert len(list(tmp_path.glob("last-*.safetensors"))) == 2
    checkpoint.write(tmp_path, "last", state(3.0))
    assert len(list(tmp_path.glob("last-*.safetensors"))) == 1


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_flipped_byte_anywhere_is_detected(tmp_path_factory: pytest.TempPathFactory, place: int, change: int) -> None:
    folder = tmp_path_factory.mktemp("checkpoint")
    checkpoint.write(folder, "last", state())
    (file,) = folder.glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[place % len(content)] ^= change
    file.write_bytes(content)
    with pytest.raises(ResumeError, match="last"):
        checkpoint.read(folder, "last")


def progress_of(epochs: list[int], epoch: int) -> Progress:
    """Progress after phases of so many epochs, of which `epoch` are of the running one."""
    records = [
        replace(RECORD, phase=f"{phase}", epoch=number) for phase, of in enumerate(epochs) for number in range(of)
    ]
    return Progress(len(epochs) - bool(epoch), epoch, 16, tuple(records))


@pytest.mark.parametrize(
    ("progress", "written", "missing"),
    [
        (progress_of([], 0), [], None),
        (progress_of([2], 2), [], "phase"),
        (progress_of([2], 2), ["best"], "phase"),
        (progress_of([2], 2), ["phase"], None),
        (progress_of([2], 0), ["phase"], "best"),
        (progress_of([2], 0), ["phase", "best"], None),
        (progress_of([2, 3], 3), ["phase"], "best"),
        (progress_of([2, 3], 3), ["best"], "phase"),
        (progress_of([2, 3], 3), ["phase", "best"], None),
    ],
)
def test_a_checkpoint_that_must_have_been_written_is_missed(
    tmp_path: Path, progress: Progress, written: list[checkpoint.Name], missing: str | None
) -> None:
    for name in ("last", *written):
        checkpoint.write(tmp_path, name, replace(state(progress=progress), run="this"))
    if missing is None:
        assert repr(checkpoint.check(tmp_path, "this")) == repr(progress)
        return
    with pytest.raises(ResumeError, match=f"{missing}.json: is missing after {len(progress.records)} epochs"):
        checkpoint.check(tmp_path, "this")


def test_a_run_of_release_0_1_has_one_best_epoch_of_all_phases(tmp_path: Path) -> None:
    progress = progress_of([2, 3], 3)
    checkpoint.write(tmp_path, "last", state(progress=progress))
    with pytest.raises(ResumeError, match="is missing"):
        checkpoint.check(tmp_path, "")
    checkpoint.write(tmp_path, "best", state(progress=progress))
    assert repr(checkpoint.check(tmp_path, "")) == repr(progress)


def test_a_missing_or_truncated_file_is_detected(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, "last", state())
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ResumeError, match="damaged"):
        checkpoint.read(tmp_path, "last")
    file.unlink()
    with pytest.raises(ResumeError, match="cannot be read"):
        checkpoint.read(tmp_path, "last")
