import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import thaw
from thaw.bundle import read_bundle, write_bundle
from thaw.data.dataset import Dataset
from thaw.data.manifest import Manifest
from thaw.errors import DataError, RecipeError
from thaw.evaluation.records import read_records
from thaw.pipeline import evaluate, finetune, load
from thaw.progress import NullReporter
from thaw.recipe import DecisionSettings, Recipe
from thaw.run_folder import RunFolder


def test_the_bundle_gives_the_calibrated_probabilities_that_were_judged(trained: RunFolder) -> None:
    manifest, classifier = Manifest.read(trained.manifest), load(trained.path)
    for split in ("val", "test"):
        records = read_records(trained.predictions, split)
        files = [manifest.root / path for path in records.paths]
        said = np.array([row.probabilities for row in thaw.predict(classifier, files)])
        assert np.allclose(said, records.scored.probabilities, atol=0.02)
    written = json.loads(trained.evaluation.read_text())["calibration"]
    assert written["images"] == len(manifest.indices("val")) and written["temperature"] > 0
    assert set(written["before"]) == set(written["after"]) == {"val", "test"}


def test_a_decision_and_borders_travel_with_the_bundle(images: Path, quick: Recipe, tmp_path: Path) -> None:
    asked = quick.model_copy(update={"decision": DecisionSettings(recall={"scratch": 1.0}), "phases": quick.phases[:1]})
    classifier = finetune(Dataset.open(images), asked, tmp_path / "runs", reporter=NullReporter())
    run = RunFolder(tmp_path / "runs" / "train-1")
    again = load(run.path)
    assert again.decision == classifier.decision and "recall of scratch" in again.decision.reason
    assert (
        again.review_policy
        and classifier.review_policy
        and again.review_policy.max_distance == classifier.review_policy.max_distance
    )
    found = evaluate(again, Dataset.open(images))
    assert found.review and found.thresholds[0].class_name == "scratch"
    val = read_records(run.predictions, "val").scored
    index = again.classes.index("scratch")
    assert val.predicted[val.truth[:, index], index].all()


def test_a_bundle_without_decision_and_borders_gives_the_most_likely_class(
    trained: RunFolder, images: Path, tmp_path: Path
) -> None:
    classifier = load(trained.path)
    classifier.review_policy = None
    write_bundle(classifier, tmp_path / "plain")
    config = json.loads((tmp_path / "plain" / "config.json").read_text())
    assert config["thaw"]["review"] is None and not (tmp_path / "plain" / "review.safetensors").exists()
    plain = read_bundle(tmp_path / "plain")
    (row,) = thaw.predict(plain, [next(images.rglob("*.png"))])
    assert row.label == plain.classes[int(np.argmax(row.probabilities))] and not row.review
    assert evaluate(plain, Dataset.open(images)).review is None


def test_a_wish_for_a_class_that_is_not_there_is_told_before_training(
    images: Path, quick: Recipe, tmp_path: Path
) -> None:
    asked = quick.model_copy(update={"decision": DecisionSettings(recall={"dent": 0.9})})
    with pytest.raises(RecipeError, match="no class 'dent'"):
        finetune(Dataset.open(images), asked, tmp_path / "runs", reporter=NullReporter())
    assert not list((tmp_path / "runs").glob("*/metrics.csv"))


def test_damaged_predictions_are_refused_with_the_file_named(trained: RunFolder, tmp_path: Path) -> None:
    copy = Path(shutil.copy(trained.predictions, tmp_path / "predictions.parquet"))
    copy.write_bytes(copy.read_bytes()[:100])
    with pytest.raises(DataError, match=r"predictions\.parquet"):
        read_records(copy, "test")
    with pytest.raises(DataError, match="no predictions on holdout"):
        read_records(trained.predictions, "holdout")
