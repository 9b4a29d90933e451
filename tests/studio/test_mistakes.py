import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.studio.clients import Client
from tests.studio.conftest import Opened
from tests.studio.predictions import of_many_classes
from tests.studio.waiting import until
from thaw.data.manifest import Manifest
from thaw.data.pixel_store import PixelStore
from thaw.errors import DataError
from thaw.labelling.label import Extraction
from thaw.progress import NullReporter
from thaw.run_folder import RunFolder
from thaw.studio import mistakes as studio_mistakes
from thaw.studio.images import Images
from thaw.studio.influence import run_influence
from thaw.studio.marks import AMBIGUOUS, Mark
from thaw.studio.mistakes import read_predictions
from thaw.studio.project import Project
from thaw.studio.run_classifier import classifier_of
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


@pytest.mark.parametrize(("classes", "has_matrix"), [(40, True), (41, False), (2_000, False)])
def test_of_many_classes_the_most_frequent_confusions_are_sent(
    client: Client, with_run: RunFolder, classes: int, has_matrix: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = of_many_classes(classes, errors=38)
    monkeypatch.setattr(studio_mistakes, "read_predictions", lambda *_: found)
    message = client.get("/api/mistakes/train-1")
    assert (message["confusion"] is not None) == has_matrix
    assert message["confusions"][0] == [1, 0, 2] and len(message["confusions"]) == 24
    assert message["all_confusions"] == 37 and len(json.dumps(message)) < 50_000


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


def test_an_image_that_was_replaced_has_no_prediction_and_is_counted(workspace: Workspace, with_run: RunFolder) -> None:
    before = read_predictions(with_run, workspace.images)
    tested, near = before.images[0].row, before.images[1].nearest[0]
    for row in (tested, near):
        workspace.images.digests[row] = hashlib.sha256(b"another image").hexdigest()
    after = read_predictions(with_run, workspace.images)
    assert (before.missing, after.missing) == (0, 1)
    assert {one.row for one in after.images} == {one.row for one in before.images} - {tested}
    assert not any({tested, near} & set(one.nearest) for one in after.images)


def test_evidence_is_not_drawn_on_an_image_that_was_replaced(
    opened: Opened, images: Path, trained: RunFolder, tmp_path: Path
) -> None:
    folder = shutil.copytree(images, tmp_path / "images")
    client = Client(opened(folder))
    shutil.copytree(trained.path, client.workspace.project.runs / "train-1")
    shutil.copy(folder / "scratch" / "000.png", folder / "ok" / "000.png")
    reply = client.http.get("/evidence/train-1/0", params={"label": "ok"})
    assert reply.status_code == 422 and "the file was replaced while Studio is open" in reply.json()["error"]


def test_the_training_images_behind_a_prediction_are_found_once_they_are_asked_for(
    client: Client, with_run: RunFolder
) -> None:
    found = client.get("/api/mistakes/train-1")
    image, place = found["images"][0], f"/api/influence/train-1/{found['images'][0]['id']}"
    label = found["classes"][image["predicted"]]
    assert client.get(place, label=label)["state"] == "none"
    assert client.post("/api/influence/train-1").json() == {"state": "computing"}
    client.workspace.background.start()
    until(lambda: client.get(place, label=label)["state"] == "ready")
    behind = client.get(place, label=label)
    manifest = Manifest.read(with_run.manifest)
    train = {client.workspace.images.row_of_file(manifest.file(int(row))) for row in manifest.indices("train")}
    assert behind["ids"] and set(behind["ids"]) <= train and behind["label"] in found["classes"]
    assert 0 <= behind["agreement"] <= 1
    assert (
        client.get(place, label="x")["ids"] == []
        and client.get(f"/api/influence/train-1/{behind['ids'][0]}", label=label)["ids"] == []
    )


def test_images_that_were_replaced_are_not_behind_a_prediction(images: Path, with_run: RunFolder) -> None:
    listed = Images.open(Project(with_run.path, images), with_run.path, NullReporter().bar)
    manifest = Manifest.read(with_run.manifest)
    row = listed.row_of_file(manifest.file(int(manifest.indices("train")[0])))
    assert row is not None
    listed.digests[row] = listed.digests[0][::-1]
    found = run_influence(with_run, listed, NullReporter().bar)
    assert row not in found.train_rows and len(found.train_rows) == len(manifest.indices("train")) - 1


def test_evidence_can_be_drawn_while_the_images_behind_a_prediction_are_found(
    images: Path, with_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = Images.open(Project(with_run.path, images), with_run.path, NullReporter().bar)
    extract, extracted = Extraction.extract, []

    def extract_elsewhere(extraction: Extraction, pixels: PixelStore, rows: np.ndarray) -> np.ndarray:
        # Drawing evidence registers hooks on the network, which see every image that runs through it.
        extracted.append(extraction.backbone is not classifier_of(with_run).backbone)
        return extract(extraction, pixels, rows)

    monkeypatch.setattr(Extraction, "extract", extract_elsewhere)
    run_influence(with_run, listed, NullReporter().bar)
    assert extracted == [True]


def test_labels_are_not_read_once_for_each_image_behind_a_prediction(
    images: Path, with_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = Images.open(Project(with_run.path, images), with_run.path, NullReporter().bar)
    read, column = list[str](), Manifest.column

    def noted(manifest: Manifest, name: str) -> list[Any]:
        read.append(name)
        return column(manifest, name)

    monkeypatch.setattr(Manifest, "column", noted)
    found = run_influence(with_run, listed, NullReporter().bar)
    assert 0 < read.count("labels") < len(found.train_rows)


def test_a_run_whose_images_are_gone_has_no_influences(images: Path, with_run: RunFolder) -> None:
    listed = Images.open(Project(with_run.path, images / "ok"), with_run.path, NullReporter().bar)
    with pytest.raises(DataError, match="fewer than two classes"):
        run_influence(with_run, listed, NullReporter().bar)


def test_an_ambiguous_image_is_not_trained_on_and_can_be_found(client: Client) -> None:
    client.edit([3], {"excluded": True, "ambiguous": True})
    assert client.get("/api/state")["undo"]["sentence"] == "1 image ambiguous"
    assert client.get("/api/images", show="ambiguous")["ids"] == [3] and client.get("/api/state")["ambiguous"] == 1
    assert client.workspace.labels.mark(3) == AMBIGUOUS and client.workspace.labels.mark(3).label is None
    assert Mark.from_json(AMBIGUOUS.to_json()) == AMBIGUOUS
    assert client.edit([4], {"ambiguous": True}).status_code == 422
