"""A finished run trained again on all images but those of test: what it sees, takes over and resumes from."""

import shutil
from collections import Counter
from itertools import chain, count
from pathlib import Path

import pytest
import torch

from tests.runs import outcome
from tests.stopping import done_despite_stops
from thaw.bundle import read_bundle
from thaw.data.manifest import Manifest
from thaw.errors import DataError
from thaw.marker import MARKER
from thaw.pipeline import compare, compare_prediction_options, decide, evaluate, report
from thaw.progress import NullReporter
from thaw.recipe import DecisionSettings
from thaw.refit import refit
from thaw.run_folder import RunFolder
from thaw.training.gain import kept_epochs


@pytest.fixture(scope="module")
def refitted(trained: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = RunFolder(tmp_path_factory.mktemp("search") / "refit")
    refit(trained, folder, NullReporter())
    return folder


def rows(folder: RunFolder, split: str) -> set[int]:
    return set(Manifest.read(folder.manifest).indices(split).tolist())


def test_it_is_trained_on_everything_but_test(trained: RunFolder, refitted: RunFolder) -> None:
    assert rows(refitted, "train") == rows(trained, "train") | rows(trained, "val")
    assert rows(refitted, "test") == rows(trained, "test") and not rows(refitted, "val")
    assert set(refitted.read_evaluation().evaluations) == {"test"}


def test_its_folder_is_marked_so_that_no_image_in_it_becomes_data(refitted: RunFolder) -> None:
    assert (refitted.path / MARKER).is_file()


def test_each_phase_that_was_kept_is_trained_up_to_its_best_epoch(trained: RunFolder, refitted: RunFolder) -> None:
    plan, recipe = trained.read_plan(), trained.read_recipe()
    assert plan is not None
    kept = kept_epochs(trained.read_epochs(), plan.gains, recipe.monitor)
    again = refitted.read_epochs()
    assert [(each.phase, each.epoch) for each in again] == [(each.phase, each.epoch) for each in kept]
    assert [each.train_loss for each in again] != [each.train_loss for each in kept]
    numbers = Counter(each.phase for each in kept)
    assert {phase.name: phase.epochs for phase in refitted.read_recipe().phases} == numbers


def test_its_epochs_have_no_validation(refitted: RunFolder) -> None:
    assert all(not each.val.by_name for each in refitted.read_epochs())


def test_temperature_decision_and_review_limits_are_those_of_the_first_run(
    trained: RunFolder, refitted: RunFolder
) -> None:
    first, second = read_bundle(trained.model), read_bundle(refitted.model)
    assert first.review_policy is not None and second.review_policy is not None
    assert second.decision == first.decision
    assert second.review_policy.max_distance == first.review_policy.max_distance
    assert second.review_policy.min_probability == first.review_policy.min_probability
    assert len(second.review_policy.train_features) == len(rows(trained, "train") | rows(trained, "val"))
    before, after = (folder.read_evaluation().calibration for folder in (trained, refitted))
    assert after.temperature == before.temperature and set(after.before) == {"test"}
    assert not torch.equal(first.head.layers[-1].weight, second.head.layers[-1].weight)


def test_it_is_compared_with_other_runs_and_evaluated_as_they_are(
    trained: RunFolder, refitted: RunFolder, images: Path
) -> None:
    assert compare(trained.path, refitted.path, reporter=NullReporter()).images == len(rows(trained, "test"))
    found = evaluate(refitted.path, images, reporter=NullReporter())
    assert found.images_of_run == {"train": len(rows(refitted, "train")), "test": len(rows(trained, "test"))}
    assert "those of validation among them" in (refitted.model / "MODEL_CARD.md").read_text()


def test_what_needs_validation_says_that_there_is_none(refitted: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no predictions on val"):
        decide(refitted.path, DecisionSettings(recall={"ok": 0.9}), tmp_path / "decided", NullReporter())
    with pytest.raises(DataError, match="was trained on its validation images"):
        report(refitted.path)
    with pytest.raises(DataError, match="has no validation images"):
        compare_prediction_options(refitted.path, NullReporter())


def test_one_that_is_stopped_anywhere_ends_with_the_same_weights(
    trained: RunFolder, refitted: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "refit")
    writes = chain([2], count(6))
    _, stops = done_despite_stops(lambda: refit(trained, folder, NullReporter()), folder.path, writes, monkeypatch)
    assert stops >= 3
    assert outcome(folder) == outcome(refitted)


def test_without_test_images_there_is_nothing_to_evaluate_on(trained: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(tmp_path / "train-1")
    shutil.copytree(trained.path, copy.path)
    manifest = Manifest.read(copy.manifest)
    splits = ["train" if split == "test" else split for split in manifest.column("split")]
    manifest.with_columns({"split": splits}).write(copy.manifest)
    with pytest.raises(DataError, match="there are no test images"):
        refit(copy, RunFolder(tmp_path / "refit"), NullReporter())
    assert not (tmp_path / "refit").exists()
