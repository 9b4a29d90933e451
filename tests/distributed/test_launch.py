from pathlib import Path

import pytest
import torch

from tests.cli.running import thaw
from thaw.distributed.launch import process_count
from thaw.errors import RecipeError


def test_auto_is_one_process_for_each_gpu_and_one_without_any(monkeypatch: pytest.MonkeyPatch) -> None:
    for gpus, expected in ((4, 4), (0, 1)):
        monkeypatch.setattr(torch.accelerator, "device_count", lambda gpus=gpus: gpus)
        assert process_count("auto") == expected
    assert process_count("3") == 3


@pytest.mark.parametrize("wanted", ["", "0", "-1", "two", "1.5"])
def test_what_is_no_number_of_processes_is_refused(wanted: str) -> None:
    with pytest.raises(RecipeError, match="a number from 1 on, or auto"):
        process_count(wanted)


def test_an_empty_number_of_processes_is_not_one_process(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of a variable that is not set."""
    assert thaw(monkeypatch, "train", images, "--processes", "") == 2
    assert "--processes : a number from 1 on, or auto" in capsys.readouterr().err


def test_another_number_than_torchrun_has_started_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("thaw.cli.training.launched", lambda: True)
    monkeypatch.setattr("thaw.cli.training.launched_processes", lambda: 2)
    assert thaw(monkeypatch, "train", "images", "--processes", "3") == 2
    assert "--processes 3: torchrun has started 2; omit one of the two" in capsys.readouterr().err
