import csv
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import thaw
from thaw.errors import DataError
from thaw.evaluation.test_time_options import compare_test_time_options
from thaw.features.engines import REFERENCE
from thaw.pipeline import compare_prediction_options, load
from thaw.prediction.job import PredictJob, write_predictions
from thaw.prediction.predictor import Predictor
from thaw.progress import NullReporter
from thaw.run_folder import RunFolder


def test_a_mirrored_prediction_is_the_same_for_the_mirror_image(trained: RunFolder) -> None:
    classifier = load(trained.path)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    mirrored = Predictor(classifier, REFERENCE, classifier.device, mirrored=True)
    first, second = mirrored.probabilities(pixels), mirrored.probabilities(pixels[:, :, ::-1].copy())
    np.testing.assert_allclose(first, second, atol=1e-6)
    assert np.abs(first - Predictor(classifier, REFERENCE, classifier.device).probabilities(pixels)).max() > 0


def test_every_option_is_tried_and_the_classifier_is_left_unchanged(trained: RunFolder, images: Path) -> None:
    classifier, files = load(trained.path), sorted(images.rglob("*.png"))
    before = thaw.predict(classifier, files[:2])
    targets = np.array([classifier.classes.index(file.parent.name) for file in files])
    found = compare_test_time_options(classifier, files, targets, None, REFERENCE, lambda done, total: None)
    assert [(item.size, item.mirrored) for item in found] == [(64, True), (96, False), (96, True)]
    assert all(item.accuracy.low <= item.accuracy.value <= item.accuracy.high and item.cost > 0 for item in found)
    assert thaw.predict(classifier, files[:2]) == before


def test_an_option_pays_if_it_lowers_the_loss_significantly(trained: RunFolder) -> None:
    assert [
        option.pays == (option.loss.high < 0) for option in compare_prediction_options(trained.path, NullReporter())
    ] == [True] * 3


def test_no_option_pays_on_images_that_the_run_found_to_be_near_duplicates(trained: RunFolder, tmp_path: Path) -> None:
    run = RunFolder(Path(shutil.copytree(trained.path, tmp_path / "train-1")))
    records = pq.read_table(run.predictions)
    place, one = records.column_names.index("group"), pa.array(np.zeros(len(records), np.int64))
    pq.write_table(records.set_column(place, "group", one), run.predictions)
    options = compare_prediction_options(run.path, NullReporter())
    assert not any(option.pays for option in options)
    assert {(option.accuracy.low, option.accuracy.high) for option in options} == {(-1.0, 1.0)}


@pytest.mark.parametrize("option", [{"mirrored": True}, {"image_size": 96}])
def test_options_change_predictions(
    option: dict[str, int], trained: RunFolder, images: Path, tmp_path: Path, own_cache: Path
) -> None:
    tables = []
    for number, more in enumerate(({}, option)):
        out = tmp_path / f"{number}.csv"
        asked = PredictJob((images,), out, engine=REFERENCE, **more)  # type: ignore[arg-type]
        write_predictions(load(trained.path), "bundle", asked, own_cache, NullReporter())
        tables.append([float(row["p_ok"]) for row in csv.DictReader(out.read_text().splitlines())])
    assert len(tables[0]) == len(tables[1]) == 36 and tables[0] != tables[1]


def test_a_predictor_of_another_size_does_not_change_the_classifier(trained: RunFolder) -> None:
    classifier = load(trained.path)
    predictor = Predictor(classifier, REFERENCE, classifier.device, image_size=128)
    assert predictor.pixel_spec.size == 128
    assert classifier.backbone.facts.pixels.size == 64


@pytest.mark.parametrize("gone", [0, -1])
def test_an_image_that_cannot_be_read_any_more_is_named(trained: RunFolder, images: Path, gone: int) -> None:
    classifier, files = load(trained.path), sorted(images.rglob("*.png"))[:6]
    files[gone] = images / "ok" / "gone.png"
    with pytest.raises(DataError, match=r"gone\.png: .*; the options are compared on all validation images"):
        compare_test_time_options(classifier, files, np.zeros(6, int), None, REFERENCE, lambda done, total: None)
