import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import thaw
from thaw.backbones.timm_backbone import build
from thaw.bundle import read_bundle, write_bundle
from thaw.classifier.classifier import Classifier, new_head
from thaw.classifier.outputs import LabelledOutputs
from thaw.data.dataset import Dataset
from thaw.data.manifest import Manifest
from thaw.errors import DataError, RecipeError
from thaw.evaluation.calibration import fit_temperature
from thaw.evaluation.evaluate import Evaluation
from thaw.evaluation.finalize import SplitOutputs, finalize
from thaw.evaluation.records import read_records
from thaw.metrics import truth_of
from thaw.pipeline import evaluate, finetune, load
from thaw.progress import NullReporter
from thaw.recipe import DecisionSettings, DecodeSettings, PreprocessingSettings, Recipe
from thaw.run_folder import RunFolder


def test_the_bundle_predicts_the_calibrated_probabilities_that_were_evaluated(trained: RunFolder) -> None:
    manifest, classifier = Manifest.read(trained.manifest), load(trained.path)
    for split in ("val", "test"):
        records = read_records(trained.predictions, split)
        files = [manifest.root / path for path in records.paths]
        predicted = np.array([row.probabilities for row in thaw.predict(classifier, files)])
        assert np.allclose(predicted, records.scored.probabilities, atol=0.02)
    written = json.loads(trained.evaluation.read_text())["calibration"]
    assert written["images"] == len(manifest.indices("val")) and written["temperature"] > 0
    assert set(written["before"]) == set(written["after"]) == {"val", "test"}


def test_decision_and_review_policy_are_saved_in_the_bundle(images: Path, quick: Recipe, tmp_path: Path) -> None:
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


def test_the_calibration_error_is_of_the_labels_that_are_predicted(images: Path, quick: Recipe, tmp_path: Path) -> None:
    asked = quick.with_settings({"decision.recall": {"scratch": 1.0}, "split.val": 0.4})
    finetune(
        Dataset.open(images), asked.model_copy(update={"phases": quick.phases[:1]}), tmp_path, reporter=NullReporter()
    )
    written = json.loads(RunFolder(tmp_path / "train-1").evaluation.read_text())
    for split in ("val", "test"):
        assert written["calibration"]["after"][split] == written[split]["overall"]["calibration_error"]


def test_a_bundle_without_decision_and_review_policy_predicts_the_most_likely_class(
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


def test_a_requirement_on_an_unknown_class_is_refused_before_training(
    images: Path, quick: Recipe, tmp_path: Path
) -> None:
    asked = quick.model_copy(update={"decision": DecisionSettings(recall={"dent": 0.9})})
    with pytest.raises(RecipeError, match="no class 'dent'"):
        finetune(Dataset.open(images), asked, tmp_path / "runs", reporter=NullReporter())
    assert not list((tmp_path / "runs").glob("*/metrics.csv"))


def test_damaged_predictions_are_refused_and_the_file_is_named(trained: RunFolder, tmp_path: Path) -> None:
    copy = Path(shutil.copy(trained.predictions, tmp_path / "predictions.parquet"))
    copy.write_bytes(copy.read_bytes()[:100])
    with pytest.raises(DataError, match=r"predictions\.parquet"):
        read_records(copy, "test")
    with pytest.raises(DataError, match="no predictions on holdout"):
        read_records(trained.predictions, "holdout")


def test_predictions_of_release_0_1_are_read(trained: RunFolder, tmp_path: Path) -> None:
    old = {"predicted": "given", "ambiguous": "unsure", "out_of_distribution": "unlike"}
    table = pq.read_table(trained.predictions)
    renamed = table.rename_columns([old.get(name, name) for name in table.column_names])
    pq.write_table(renamed.replace_schema_metadata(table.schema.metadata), tmp_path / "old.parquet")
    now, before = (read_records(file, "test") for file in (trained.predictions, tmp_path / "old.parquet"))
    assert (now.scored.predicted == before.scored.predicted).all() and (now.flagged == before.flagged).all()


def test_an_evaluation_of_release_0_1_is_read(trained: RunFolder) -> None:
    old = {
        "review": "for_a_person",
        "ambiguous": "unsure",
        "out_of_distribution": "unlike",
        "accuracy_of_rest": "right_of_rest",
        "thresholds": "outcomes",
        "metrics": "figures",
    }
    text = json.dumps(json.loads(trained.evaluation.read_text())["test"])
    values = json.loads(text)
    for name, before in old.items():
        text = text.replace(f'"{name}":', f'"{before}":')
    assert Evaluation.from_json(json.loads(text)) == Evaluation.from_json(values)


def outputs_around(classifier: Classifier, images: int, seed: int, confidence: float) -> LabelledOutputs:
    """Outputs for images of noise, whose logit of the true class is higher by `confidence`."""
    draws = np.random.default_rng(seed)
    targets = np.arange(images) % 3
    logits = confidence * truth_of(targets, 3) + draws.normal(size=(images, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    features = draws.normal(size=(images, classifier.backbone.facts.width)) + confidence
    return LabelledOutputs(features.astype(np.float32), probabilities.astype(np.float32), targets)


def test_temperature_decision_and_review_limits_are_fitted_on_validation_whatever_the_outputs_on_test() -> None:
    settings, found = DecisionSettings(recall={"b": 0.8}, coverage=0.9), []
    backbone = build("mobilenetv3_small_050", "random", PreprocessingSettings(image_size=32))
    for confidence in (-6.0, 0.0, 6.0):
        head = new_head(backbone, 3, dropout=0.0)
        classifier = Classifier(backbone, head, "abc", "multiclass", DecodeSettings())
        train, val = (outputs_around(classifier, images, seed=images, confidence=2.0) for images in (30, 45))
        test = outputs_around(classifier, 27, seed=1, confidence=confidence)
        outputs = SplitOutputs(train, np.arange(30), {"val": val, "test": test}, {"val": None, "test": None})
        finalized = finalize(classifier, outputs, settings, seed=0)
        fitted = fit_temperature(val.probabilities, truth_of(val.targets, 3), "multiclass")
        assert finalized.calibration.temperature == fitted
        policy = classifier.review_policy
        assert policy
        limits = (policy.max_distance, policy.min_probability, policy.confidence, policy.class_fractions)
        found.append((classifier.decision, limits, policy.train_features.tolist(), finalized.evaluations["val"]))
    assert found[0] == found[1] == found[2]
    assert found[0][0].thresholds
