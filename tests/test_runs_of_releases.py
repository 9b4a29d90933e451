"""Runs of earlier releases open, report, resume and give the probabilities that they gave."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import thaw
from thaw.data.dataset import Dataset
from thaw.data.manifest import Manifest
from thaw.data.surfaces import write_surfaces
from thaw.evaluation.records import read_records
from thaw.pipeline import finetune, report
from thaw.progress import NullReporter
from thaw.run_folder import RunFolder

RUN = Path(__file__).with_name("releases") / "run-0.1.0"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """The images on which the run was trained."""
    write_surfaces(tmp_path / "surfaces", images_per_class=10, size=48, classes=("ok", "scratch", "stain"))
    return tmp_path / "surfaces"


@pytest.fixture
def run(images: Path, tmp_path: Path) -> RunFolder:
    """A copy of the run, whose images lie in a folder of this test."""
    folder = RunFolder(tmp_path / "runs" / "train-1")
    shutil.copytree(RUN, folder.path)
    manifest = Manifest.read(folder.manifest)
    Manifest(manifest.table, manifest.classes, manifest.task, images, manifest.ignored).write(folder.manifest)
    return folder


def test_every_file_of_a_run_of_0_1_0_is_read(run: RunFolder) -> None:
    recipe, plan, evaluated = run.read_recipe(), run.read_plan(), run.read_evaluation()
    assert [phase.solver for phase in recipe.phases] == ["lbfgs", "optimizer", "optimizer"]
    assert recipe.decision.recall == {"scratch": 0.9} and recipe.target == {"accuracy": 0.99}
    assert plan and plan.actual and plan.actual.extraction_passes == 1 and plan.requested.strategy == "manual"
    assert evaluated.evaluations["test"].images == 6 and evaluated.evaluations["val"].review
    assert evaluated.evaluations["val"].thresholds[0].class_name == "scratch"


def test_its_classifier_gives_the_probabilities_that_it_gave(run: RunFolder, images: Path) -> None:
    records = read_records(run.predictions, "test")
    predictions = thaw.predict(run.path, [images / path for path in records.paths])
    given = np.array([prediction.probabilities for prediction in predictions])
    assert np.allclose(given, records.scored.probabilities, atol=1e-4)
    assert [row.out_of_distribution for row in predictions] == records.out_of_distribution.tolist()
    assert [row.ambiguous for row in predictions] == records.ambiguous.tolist()


def test_its_report_can_be_written_again(run: RunFolder) -> None:
    page = report(run.path).read_text()
    assert "test_efficientnet" in page and "scratch" in page


def test_it_resumes_where_it_was_interrupted(run: RunFolder, images: Path) -> None:
    before = json.loads(run.evaluation.read_text())
    run.evaluation.unlink()
    finetune(Dataset.open(images), None, run.path.parent, resume=True, reporter=NullReporter())
    after = run.read_evaluation().evaluations["test"]
    assert [list(row) for row in after.confusion] == before["test"]["confusion"]
