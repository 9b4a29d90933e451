import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import thaw
from bench.versus.checkpoints import NAME, KeepCheckpoints, Kept, accuracies
from thaw.data.manifest import Manifest
from thaw.evaluation.class_prior import weighted_decision
from thaw.run_folder import RunFolder
from thaw.training import checkpoint


def write(folder: Path, file: str, written: float) -> None:
    """A checkpoint in place of the one before, as a run writes it."""
    old = list(folder.glob("*.safetensors"))
    (folder / file).write_text(file)
    pointer = folder / "next"
    pointer.write_text(json.dumps({"file": file}))
    os.utime(pointer, (written, written))
    pointer.replace(folder / f"{NAME}.json")
    for one in old:
        one.unlink()


def wait_for(count: int, keep: KeepCheckpoints) -> None:
    over = time.monotonic() + 10
    while len(keep.kept) < count and time.monotonic() < over:
        time.sleep(0.01)


def test_checkpoints_are_kept_when_the_run_replaces_them(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "train-1" / "checkpoints"
    with KeepCheckpoints(tmp_path / "runs", tmp_path / "kept") as keep:
        folder.mkdir(parents=True)
        for number, written in enumerate((1000.0, 2000.0), start=1):
            write(folder, f"{NAME}-{number}.safetensors", written)
            wait_for(number, keep)
    assert [one.written for one in keep.kept] == [1000.0, 2000.0]
    assert all((one.folder / f"{NAME}-{number}.safetensors").is_file() for number, one in enumerate(keep.kept, 1))


def test_a_checkpoint_is_tested_as_the_bundle_with_its_own_weights(trained: RunFolder, tmp_path: Path) -> None:
    head = checkpoint.read(trained.checkpoints, "best")
    assert head is not None and [name for name in head.weights if name.startswith("head.")]
    # Whatever the image, the first class.
    weights = {name: torch.zeros_like(value) for name, value in head.weights.items() if name.startswith("head.")}
    (bias,) = (name for name, value in weights.items() if value.shape == (3,))
    weights[bias][0] = 9.0
    checkpoint.write(tmp_path, NAME, replace(head, weights=head.weights | weights))
    manifest = Manifest.read(trained.manifest)
    images = {manifest.file(int(row)): manifest.column("labels")[int(row)][0] for row in manifest.indices("test")}
    fraction = list(images.values()).count(manifest.classes[0]) / len(images)
    assert accuracies(trained.path, images, [Kept(tmp_path, 7.0)]) == [(7.0, fraction)]


def test_a_checkpoint_of_a_phase_that_was_not_kept_is_no_answer(trained: RunFolder, tmp_path: Path) -> None:
    saved = checkpoint.read(trained.checkpoints, "best")
    assert saved is not None
    records = tuple(replace(record, phase="dropped") for record in saved.progress.records)
    checkpoint.write(tmp_path, NAME, replace(saved, progress=replace(saved.progress, records=records)))
    assert accuracies(trained.path, {}, [Kept(tmp_path, 7.0)]) == []


def test_the_baseline_is_the_first_answer(trained: RunFolder, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "train-1"
    with KeepCheckpoints(tmp_path / "runs", tmp_path / "kept") as keep:
        before = time.time()
        shutil.copytree(trained.path, folder)
        shutil.copytree(trained.model, folder / "baseline")
        over = time.monotonic() + 10
        while keep.baseline is None and time.monotonic() < over:
            time.sleep(0.01)
    assert keep.baseline is not None and before <= keep.baseline <= time.time()
    manifest = Manifest.read(trained.manifest)
    images = {manifest.file(int(row)): manifest.column("labels")[int(row)][0] for row in manifest.indices("test")}
    ((written, accuracy),) = accuracies(folder, images, [], keep.baseline)
    evaluation = trained.read_evaluation().evaluations["test"]
    assert written == keep.baseline and accuracy == evaluation.overall["accuracy"].value


def test_a_checkpoint_has_its_class_weights_in_its_head_alone(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = checkpoint.read(trained.checkpoints, "best")
    assert head is not None
    checkpoint.write(tmp_path, NAME, head)
    manifest = Manifest.read(trained.manifest)
    images = {manifest.file(int(row)): manifest.column("labels")[int(row)][0] for row in manifest.indices("test")}
    (plain,) = accuracies(trained.path, images, [Kept(tmp_path, 7.0)])
    weighted = thaw.load(trained.path)
    weighted.decision = weighted_decision(np.array([1e-6, 1.0, 1e6]), "multiclass", "balanced")
    monkeypatch.setattr(thaw, "load", lambda run: weighted)
    assert accuracies(trained.path, images, [Kept(tmp_path, 7.0)]) == [plain]
