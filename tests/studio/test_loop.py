"""The loop as a whole: label, train in a process of its own, look at the mistakes, fix a label, train again."""

import time
from collections import Counter

import pytest

from tests.studio.clients import Client
from tests.studio.conftest import Opened


@pytest.mark.slow
def test_labels_lead_to_a_run_whose_mistakes_lead_to_better_labels(opened: Opened) -> None:
    client = Client(opened())

    def train() -> str:
        assert client.post("/api/training").status_code == 200
        deadline = time.monotonic() + 240
        while (found := client.get("/api/training"))["state"] in ("starting", "training"):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert found["state"] == "finished", found["log"]
        name: str = found["run"]
        return name

    client.edit([0], {"excluded": True})
    client.edit([1, 2], "stain")
    assert train() == "train-1"
    found = client.get("/api/mistakes/train-1")
    assert Counter(image["split"] for image in found["images"]).keys() == {"val", "test"}
    assert 0 not in {image["id"] for image in found["images"]}
    splits = {image["id"]: image["split"] for image in found["images"]}
    client.edit([1, 2], "ok")
    assert train() == "train-2"
    again = {image["id"]: image["split"] for image in client.get("/api/mistakes/train-2")["images"]}
    assert all(again[row] == split for row, split in splits.items() if row in again)
    assert [run["run"] for run in client.get("/api/runs")] == ["train-2", "train-1"]
