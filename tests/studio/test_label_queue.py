import pytest

from tests.studio.clients import Client
from tests.studio.conftest import Opened
from thaw.studio.features import ImageFeatures
from thaw.studio.images import Images
from thaw.studio.label_queue import make_queue, similar, suggest
from thaw.studio.marks import EXCLUDED, UNLABELLED, Mark
from thaw.studio.workspace import Workspace

CLASSES = ("ok", "scratch", "stain")


@pytest.fixture
def marks(listed: Images) -> list[Mark]:
    """The first four images of each class have a label."""
    return [Mark(label) if row % 12 < 4 else UNLABELLED for row, label in enumerate(listed.labels)]


def test_without_labels_typical_images_are_asked_for(features: ImageFeatures) -> None:
    queue = make_queue(features, [UNLABELLED] * 36, (), 6)
    assert len(set(queue.rows)) == 6 and queue.reason == "typical" and queue.outlook is None
    assert not queue.suggestions and not queue.can_stop


def test_labelled_excluded_and_skipped_images_are_not_asked_for(features: ImageFeatures, marks: list[Mark]) -> None:
    marks[4:8] = [EXCLUDED] * 4
    queue = make_queue(features, marks, CLASSES, 36, {8, 9})
    assert not {0, 1, 2, 3, 4, 5, 6, 7, 8, 9} & set(queue.rows)
    assert queue.labelled == 12 and queue.waiting == len(queue.rows)
    assert set(queue.suggestions) == set(queue.rows) and queue.outlook


def test_when_every_image_has_a_label_nothing_is_asked_for(features: ImageFeatures, listed: Images) -> None:
    queue = make_queue(features, [Mark(label) for label in listed.labels], CLASSES, 10)
    assert not queue.rows and not queue.waiting


def test_the_head_follows_every_label(features: ImageFeatures, marks: list[Mark]) -> None:
    before = suggest(features, marks, CLASSES, [30])
    assert 0 < before[30].confidence <= 1 and before[30].label in CLASSES
    swapped = [
        Mark({"ok": "stain", "stain": "ok"}.get(mark.label, mark.label)) if mark.label else mark for mark in marks
    ]
    after = suggest(features, swapped, CLASSES, [30])
    assert {before[30].label, after[30].label} in ({"ok", "stain"}, {"scratch"})
    assert not suggest(features, [UNLABELLED] * 36, (), [30])


def test_similar_images_have_no_label(features: ImageFeatures, marks: list[Mark]) -> None:
    found = similar(features, marks, 30, 5)
    assert len(set(found)) == 5 and 30 not in found and all(marks[row] == UNLABELLED for row in found)
    assert not similar(features, [EXCLUDED] * 36, 30, 5)


def test_before_features_there_is_no_queue(client: Client) -> None:
    for path in ("/api/queue", "/api/suggestions?ids=1", "/api/similar/1"):
        assert client.http.get(path).status_code == 503


def test_the_queue_over_http(client: Client, workspace: Workspace, features: ImageFeatures) -> None:
    workspace.features = features
    client.edit([row for row in range(36) if row % 12 > 8], None)
    first = client.get("/api/queue")
    assert first["images"] and first["why"] and "100 more labels" in first["outlook"]
    skipped = [one["id"] for one in first["images"]][:2]
    again = client.get("/api/queue", skip=",".join(map(str, skipped)))
    assert not set(skipped) & {one["id"] for one in again["images"]}
    assert client.http.get("/api/queue", params={"skip": "x"}).status_code == 422
    ids = [one["id"] for one in again["images"]]
    assert len(client.get("/api/suggestions", ids=",".join(map(str, ids)))["suggestions"]) == len(ids)
    assert client.get(f"/api/similar/{ids[0]}")["ids"]


def test_the_curve_is_kept(opened: Opened, client: Client, workspace: Workspace, features: ImageFeatures) -> None:
    workspace.features = features
    client.edit([11, 23, 35], None)
    curve = client.get("/api/queue")["curve"]
    assert curve[-1]["labels"] == 33 and 0 <= curve[-1]["changes"] <= 1
    assert '"action": "outlook"' in workspace.project.actions.read_text(encoding="utf-8")
    workspace.close()
    assert opened().curve == curve
