import time
from dataclasses import replace

import numpy as np
import pytest

from tests.studio.clients import Client
from tests.studio.conftest import Opened
from tests.studio.waiting import until
from thaw.inspection.duplicates import DuplicatePair
from thaw.labelling import order
from thaw.labelling.pool import Pool
from thaw.labelling.strategy import Strategy
from thaw.studio.features import ImageFeatures, Snapshot
from thaw.studio.images import Images
from thaw.studio.label_queue import make_queue, outlook, similar, suggest
from thaw.studio.marks import EXCLUDED, UNLABELLED, Mark
from thaw.studio.workspace import Workspace

CLASSES = ("ok", "scratch", "stain")


@pytest.fixture
def marks(listed: Images) -> list[Mark]:
    """The first four images of each class have a label."""
    return [Mark(label) if row % 12 < 4 else UNLABELLED for row, label in enumerate(listed.labels)]


def test_without_labels_typical_images_are_asked_for(features: ImageFeatures) -> None:
    queue = make_queue(Snapshot(features, [UNLABELLED] * 36, ()), 6)
    assert len(set(queue.rows)) == 6 and queue.strategy.reason == "typical"
    assert not queue.suggestions and outlook(Snapshot(features, [UNLABELLED] * 36, ())) is None


def test_labelled_excluded_and_skipped_images_are_not_asked_for(features: ImageFeatures, marks: list[Mark]) -> None:
    marks[4:8] = [EXCLUDED] * 4
    queue = make_queue(Snapshot(features, marks, CLASSES), 36, {8, 9})
    assert not {0, 1, 2, 3, 4, 5, 6, 7, 8, 9} & set(queue.rows)
    assert queue.labelled == 12 and queue.waiting == len(queue.rows)
    assert set(queue.suggestions) == set(queue.rows) and outlook(Snapshot(features, marks, CLASSES))


@pytest.mark.parametrize("order", [1, -1])
def test_a_near_duplicate_of_an_excluded_image_is_asked_for(
    features: ImageFeatures, marks: list[Mark], order: int
) -> None:
    marks[4] = EXCLUDED
    manifest = features.manifest.with_columns({"sha256": [f"{row:02}" for row in range(36)][::order]})
    near = replace(features, manifest=manifest, duplicates=(DuplicatePair(4, 5, 0.97, exact=False),))
    queue = make_queue(Snapshot(near, marks, CLASSES), 36)
    assert 5 in queue.rows and 4 not in queue.rows and queue.duplicates == 0


def test_when_every_image_has_a_label_nothing_is_asked_for(features: ImageFeatures, listed: Images) -> None:
    snapshot = Snapshot(features, [Mark(label) for label in listed.labels], CLASSES)
    queue = make_queue(snapshot, 10)
    assert not queue.rows and not queue.waiting and outlook(snapshot) is None


def test_the_head_follows_every_label(features: ImageFeatures, marks: list[Mark]) -> None:
    before = suggest(Snapshot(features, marks, CLASSES), [30])
    assert 0 < before[30].confidence <= 1 and before[30].label in CLASSES
    swapped = [
        Mark({"ok": "stain", "stain": "ok"}.get(mark.label, mark.label)) if mark.label else mark for mark in marks
    ]
    after = suggest(Snapshot(features, swapped, CLASSES), [30])
    assert {before[30].label, after[30].label} in ({"ok", "stain"}, {"scratch"})
    assert not suggest(Snapshot(features, [UNLABELLED] * 36, ()), [30])


def test_similar_images_have_no_label(features: ImageFeatures, marks: list[Mark]) -> None:
    found = similar(Snapshot(features, marks, CLASSES), 30, 5)
    assert len(set(found)) == 5 and 30 not in found and all(marks[row] == UNLABELLED for row in found)
    assert not similar(Snapshot(features, [EXCLUDED] * 36, CLASSES), 30, 5)


def test_before_features_there_is_no_queue(client: Client) -> None:
    for path in ("/api/queue", "/api/suggestions?ids=1", "/api/similar/1"):
        assert client.http.get(path).status_code == 503


def test_the_queue_over_http(client: Client, workspace: Workspace, features: ImageFeatures) -> None:
    workspace.features = features
    client.edit([row for row in range(36) if row % 12 > 8], None)
    first = client.get("/api/queue")
    assert first["images"] and first["why"] and client.get("/api/outlook")["sentence"] == ""
    skipped = [one["id"] for one in first["images"]][:2]
    again = client.get("/api/queue", skip=",".join(map(str, skipped)))
    assert not set(skipped) & {one["id"] for one in again["images"]}
    assert client.http.get("/api/queue", params={"skip": "x"}).status_code == 422
    ids = [one["id"] for one in again["images"]]
    assert len(client.get("/api/suggestions", ids=",".join(map(str, ids)))["suggestions"]) == len(ids)
    assert client.get(f"/api/similar/{ids[0]}")["ids"]


def test_what_more_labels_give_is_estimated_in_the_background_and_kept(
    opened: Opened, client: Client, workspace: Workspace, features: ImageFeatures
) -> None:
    workspace.features = features
    client.edit([11, 23, 35], None)
    client.get("/api/queue")
    workspace.background.start()
    deadline = time.monotonic() + 20
    while not (found := client.get("/api/outlook"))["curve"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "3 more labels" in found["sentence"] and found["curve"][-1]["labels"] == 33
    workspace.close()
    assert opened().curve == found["curve"]


def test_what_more_labels_give_is_not_said_once_every_image_has_one(
    client: Client, workspace: Workspace, features: ImageFeatures
) -> None:
    workspace.features = features
    workspace.background.start()
    client.edit([35], None)
    client.get("/api/queue")
    until(lambda: "1 more label" in client.get("/api/outlook")["sentence"])
    client.edit([35], "stain")
    assert client.get("/api/queue")["waiting"] == 0
    until(lambda: client.get("/api/outlook")["sentence"] == "")
    client.edit([35], None)
    client.get("/api/queue")
    until(lambda: "1 more label" in client.get("/api/outlook")["sentence"])


def test_how_images_are_chosen_is_measured_again_with_a_tenth_more_labels(
    client: Client, workspace: Workspace, features: ImageFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.features = features
    measured: list[int] = []

    def choose(values: np.ndarray, pool: Pool) -> Strategy:
        measured.append(len(pool.labelled))
        return Strategy("uncertain", "so")

    monkeypatch.setattr(order, "choose_strategy", choose)
    client.edit(list(range(20, 36)), None)
    for row in (20, 21, 22, 23):
        client.get("/api/queue")
        client.edit([row], "scratch")
    assert measured == [20, 23]
