import base64
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.exports.classifiers import random_classifier
from tests.studio.clients import ORIGIN, Client
from thaw.bundle import write_bundle
from thaw.classifier.decision import Decision
from thaw.prediction.predict import predict_files
from thaw.run_folder import RunFolder
from thaw.studio.run_classifier import classify


def tried(client: Client, data: bytes, run: str = "train-1") -> httpx.Response:
    headers = {"Origin": ORIGIN, "X-Thaw-CSRF": client.access.csrf, "Content-Type": "application/octet-stream"}
    return client.http.post(f"/api/try/{run}", content=data, headers=headers)


def test_an_image_is_classified_as_by_thaw_predict(client: Client, with_run: RunFolder, images: Path) -> None:
    from thaw.bundle import read_bundle

    file = images / "scratch" / "003.png"
    found = tried(client, file.read_bytes()).json()
    (expected,) = predict_files(read_bundle(with_run.model), [file])
    assert found["label"] == found["explained"] == expected.labels[0]
    assert found["confidence"] == pytest.approx(expected.confidence, abs=1e-5)
    assert sum(one["probability"] for one in found["probabilities"]) == pytest.approx(1, abs=1e-4)
    for name in ("view", "evidence"):
        assert base64.b64decode(found[name].partition("base64,")[2]).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a", b"<svg onload=alert(1)>", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n" + bytes(99)]
)
def test_what_is_no_image_is_refused_with_the_reason(client: Client, with_run: RunFolder, data: bytes) -> None:
    reply = tried(client, data)
    assert reply.status_code == 422 and reply.json()["error"]


def test_only_finished_runs_classify(client: Client) -> None:
    assert tried(client, b"", "train-1").status_code == 404


@pytest.mark.parametrize(("threshold", "labels"), [(2.0, 0), (0.0, 3)])
def test_the_evidence_is_named_by_the_likeliest_label_also_where_there_is_none_or_several(
    threshold: float, labels: int, images: Path, tmp_path: Path
) -> None:
    run, classifier = RunFolder(tmp_path), random_classifier(task="multilabel")
    classifier.decision = Decision(tuple((index, threshold) for index in range(3)))
    write_bundle(classifier, run.model)
    found = classify(run, (images / "scratch" / "003.png").read_bytes())
    assert len(found.prediction.labels) == labels
    assert found.explained == found.classes[int(np.argmax(found.prediction.probabilities))]
