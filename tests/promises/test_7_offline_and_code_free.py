import pickle
import socket
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

import thaw
from thaw.cli import app
from thaw.data.dataset import Dataset
from thaw.pipeline import evaluate, finetune, load
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.run_folder import RunFolder

PLAIN = {".safetensors", ".json", ".parquet", ".csv", ".yaml", ".png", ".md", ".txt", ""}


@pytest.fixture
def sealed_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a socket or unpickling fails the test."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("a socket was opened, or a pickle read")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)


@pytest.mark.usefixtures("sealed_off")
def test_training_evaluating_and_predicting_open_no_socket_and_read_no_pickle(
    images: Path, quick: Recipe, tmp_path: Path
) -> None:
    finetune(Dataset.open(images), quick, tmp_path / "runs", reporter=NullReporter())
    classifier = load(tmp_path / "runs" / "train-1")
    assert evaluate(classifier, Dataset.open(images)).images == 36
    assert thaw.predict(classifier, sorted(images.rglob("*.png"))[:2])[0].status == "ok"


@pytest.mark.usefixtures("sealed_off")
def test_openvino_opens_no_socket(images: Path, quick: Recipe, tmp_path: Path) -> None:
    finetune(
        Dataset.open(images), quick.model_copy(update={"engine": "openvino-fp32"}), tmp_path, reporter=NullReporter()
    )
    assert RunFolder(tmp_path / "train-1").is_finished


@pytest.mark.usefixtures("sealed_off")
def test_listing_the_models_opens_no_socket() -> None:
    with pytest.raises(SystemExit) as done:
        app(["models", "list", "resnet50"])
    assert done.value.code in (0, None)


def test_all_files_of_a_run_and_the_cache_are_in_formats_without_code(trained: RunFolder, own_cache: Path) -> None:
    for folder in (trained.path, own_cache):
        files = [file for file in folder.rglob("*") if file.is_file()]
        assert files
        logs = [file for file in files if file.parent.name == "tensorboard"]
        assert all(file.name.startswith("events.out.tfevents.") for file in logs)
        others = [file for file in files if file not in logs and file.name != trained.report.name]
        assert {file.suffix for file in others} <= PLAIN | {".bin"}
    assert all(not file.read_bytes().startswith(b"\x80") for file in trained.path.rglob("*.safetensors"))
