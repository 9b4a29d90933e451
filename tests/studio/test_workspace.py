from pathlib import Path

import pytest

from tests.studio.clients import Client
from tests.studio.conftest import Opened
from tests.studio.waiting import until
from thaw.errors import DataError, WriteError
from thaw.studio import features as module
from thaw.studio.features import ImageFeatures


def test_one_studio_at_a_time_opens_a_project(opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without locks of its own on the journals, as on Windows.
    monkeypatch.setattr("thaw.studio.journal.lock", lambda handle: None)
    first = opened()
    with pytest.raises(
        DataError, match=f"^{tmp_path / 'studio'}: another Studio has this project open; close it first$"
    ):
        opened()
    first.close()
    opened()


def test_why_features_cannot_be_extracted_is_said_until_they_are(
    client: Client, features: ImageFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = [WriteError("cache", "the disk is full"), features]

    def extract(*_: object) -> ImageFeatures:
        if isinstance(result := results.pop(0), WriteError):
            raise result
        return result

    monkeypatch.setattr(module, "extract_features", extract)
    client.workspace.start()
    until(lambda: client.get("/api/state")["errors"] == {"images": "cache: the disk is full"})
    assert client.http.get("/api/queue").json()["error"] == "cache: the disk is full"
    assert client.post("/api/piles").status_code == 200
    until(lambda: client.get("/api/state")["ready"])
    assert not results and not client.get("/api/state")["errors"]
