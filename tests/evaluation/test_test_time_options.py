import csv
from pathlib import Path

import numpy as np
import pytest

import thaw
from thaw.evaluation.test_time_options import try_options
from thaw.features.engines import REFERENCE
from thaw.pipeline import compare_prediction_options as offer
from thaw.pipeline import load
from thaw.prediction.job import PredictJob, write_predictions
from thaw.prediction.predictor import Predictor, at_image_size
from thaw.progress import NullReporter
from thaw.run_folder import RunFolder


def test_a_mirrored_prediction_is_that_of_the_mirror_image_too(trained: RunFolder) -> None:
    classifier = load(trained.path)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    mirrored = Predictor(classifier, REFERENCE, classifier.device, mirrored=True)
    one, other = mirrored.probabilities(pixels), mirrored.probabilities(pixels[:, :, ::-1].copy())
    np.testing.assert_allclose(one, other, atol=1e-6)
    assert np.abs(one - Predictor(classifier, REFERENCE, classifier.device).probabilities(pixels)).max() > 0


def test_every_way_is_tried_on_the_same_images_and_the_classifier_stays_as_it_is(
    trained: RunFolder, images: Path
) -> None:
    classifier, files = load(trained.path), sorted(images.rglob("*.png"))
    before = thaw.predict(classifier, files[:2])
    targets = np.array([classifier.classes.index(file.parent.name) for file in files])
    found = try_options(classifier, files, targets, None, REFERENCE, lambda done, total: None)
    assert [(item.size, item.mirrored) for item in found] == [(64, True), (96, False), (96, True)]
    assert all(item.accuracy.low <= item.accuracy.value <= item.accuracy.high and item.cost > 0 for item in found)
    assert thaw.predict(classifier, files[:2]) == before


def test_a_run_offers_what_pays_on_validation(trained: RunFolder) -> None:
    assert [option.pays == (option.loss.high < 0) for option in offer(trained.path, NullReporter())] == [True] * 3


@pytest.mark.parametrize("way", [{"mirrored": True}, {"size": 96}])
def test_predictions_of_another_way_are_other_ones(
    way: dict[str, int], trained: RunFolder, images: Path, tmp_path: Path, own_cache: Path
) -> None:
    tables = []
    for number, more in enumerate(({}, way)):
        out = tmp_path / f"{number}.csv"
        asked = PredictJob((images,), out, engine=REFERENCE, **more)  # type: ignore[arg-type]
        write_predictions(load(trained.path), "bundle", asked, own_cache, NullReporter())
        tables.append([float(row["p_ok"]) for row in csv.DictReader(out.read_text().splitlines())])
    assert len(tables[0]) == len(tables[1]) == 36 and tables[0] != tables[1]


def test_another_size_is_left_when_the_block_ends(trained: RunFolder) -> None:
    classifier = load(trained.path)
    with pytest.raises(ZeroDivisionError), at_image_size(classifier, 128):
        assert classifier.backbone.facts.pixels.size == 128
        raise ZeroDivisionError
    assert classifier.backbone.facts.pixels.size == 64
