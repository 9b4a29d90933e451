import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.studio.clients import Client
from thaw.progress import NullReporter
from thaw.run_folder import RunFolder
from thaw.studio.images import Images
from thaw.studio.mistakes import read_predictions
from thaw.studio.project import Project
from thaw.studio.workspace import Workspace


def test_errors_come_first_and_the_confusion_matrix_counts_every_image(
    workspace: Workspace, with_run: RunFolder
) -> None:
    found = read_predictions(with_run, workspace.images)
    errors = [image for image in found.images if image.truth != image.predicted]
    assert list(found.images[: len(errors)]) == errors
    assert [one.confidence for one in errors] == sorted((one.confidence for one in errors), reverse=True)
    matrix = found.confusion()
    assert matrix.sum() == len(found.images) and matrix.trace() == len(found.images) - len(errors)
    for image in found.images:
        assert workspace.labels.mark(image.row).label == found.classes[image.truth]
        assert len(image.nearest) == 3 and image.row not in image.nearest
    evaluations = with_run.read_evaluation().evaluations.values()
    assert np.array_equal(matrix, sum(np.array(one.confusion) for one in evaluations))


def test_evidence_is_drawn_on_the_image_for_a_class(client: Client, with_run: RunFolder) -> None:
    image = client.get("/api/mistakes/train-1")["images"][0]
    maps = [
        client.http.get(f"/evidence/train-1/{image['id']}", params={"label": name}).content for name in ("ok", "stain")
    ]
    assert [Image.open(io.BytesIO(one)).size for one in maps] == [(64, 64)] * 2 and maps[0] != maps[1]


@pytest.mark.parametrize("label", ["", "x", "OK", "0", "../ok"])
def test_another_class_has_no_evidence(client: Client, with_run: RunFolder, label: str) -> None:
    assert client.http.get("/evidence/train-1/0", params={"label": label}).status_code == 404


@pytest.mark.parametrize("place", ["train-2/0", "../0", "train-1/36", "train-1/x", "train-1/-1"])
def test_other_places_have_no_evidence(client: Client, with_run: RunFolder, place: str) -> None:
    assert client.http.get(f"/evidence/{place}", params={"label": "ok"}).status_code == 404


def test_images_that_left_the_project_are_counted(images: Path, with_run: RunFolder) -> None:
    listed = Images.open(Project(with_run.path, images / "ok"), with_run.path, NullReporter().bar)
    found = read_predictions(with_run, listed)
    assert found.missing > 0 and all(found.classes[image.truth] == "ok" for image in found.images)
