"""A run of a project learns what was labelled since, as a process of its own."""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.studio.clients import Client
from tests.studio.conftest import Opened
from tests.studio.waiting import until
from thaw.errors import WriteError
from thaw.evaluation.class_changes import ClassChange
from thaw.metrics import Estimate
from thaw.run_folder import ImagesPart, RunFolder, UpdateFile
from thaw.studio import detached
from thaw.studio.journal import Line

PROGRAM = """
import os, pathlib, shutil, sys, time
run, table = map(pathlib.Path, sys.argv[-2:])
print("began", *sys.argv[1:4], flush=True)
while not (run.parent / "go").exists():
    time.sleep(0.01)
outcome = (run.parent / "go").read_text()
if outcome == "fail":
    sys.exit("thaw: the features are gone")
shutil.copytree(run, run.parent / "train-2")
if outcome == "not kept":
    (run.parent / "train-2" / "evaluation.json").unlink()
shutil.copy(run.parent / outcome, run.parent / "train-2" / "update.json")
"""
"""An update that ends as the file `go` says."""

FALLS = ClassChange("ok", 12, 1.0, 0.4, Estimate(-0.6, -0.9, -0.3), 0.008)


@pytest.fixture
def program(with_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Starts the program instead of `thaw update`; gives the folder of the runs."""
    file = tmp_path / "program"
    file.write_text(f"#!{sys.executable}\n{PROGRAM}", encoding="utf-8")
    file.chmod(0o755)
    monkeypatch.setattr(detached.sys, "executable", str(file))
    runs = with_run.path.parent
    begun = UpdateFile(str(with_run.path), "", "head", (ImagesPart(36, "key"), ImagesPart(3, "other")))
    for outcome, change in (("kept", ClassChange("ok", 12, 1.0, 1.0)), ("not kept", FALLS)):
        decided = begun.decided((change,), ())
        (runs / outcome).write_text(json.dumps(decided.to_json()), encoding="utf-8")
    return runs


@pytest.mark.parametrize("outcome", ["kept", "not kept", "fail"])
def test_it_is_started_by_a_button_and_ends_kept_or_not(client: Client, program: Path, outcome: str) -> None:
    assert client.get("/api/update") == {"state": "none"}
    started = client.post("/api/update", {"run": "train-1"})
    assert started.status_code == 200 and started.json()["state"] == "running"
    assert client.post("/api/update", {"run": "train-1"}).status_code == 409
    assert client.workspace.project.update_table.read_text(encoding="utf-8").startswith("path,label")
    (program / "go").write_text(outcome, encoding="utf-8")
    until(lambda: client.get("/api/update")["state"] != "running")
    found = client.get("/api/update")
    if outcome == "fail":
        assert found["state"] == "failed" and found["log"][-1] == "thaw: the features are gone"
        return
    assert found["state"] == outcome and found["updated"] == "train-2"
    assert [change["falls"] for change in found["old"]] == [outcome == "not kept"]
    finished = {run["run"] for run in client.get("/api/runs")}
    assert finished == ({"train-1", "train-2"} if outcome == "kept" else {"train-1"})


def test_only_a_finished_run_is_updated(client: Client, program: Path) -> None:
    for name in ("train-9", "../train-1", ""):
        assert client.post("/api/update", {"run": name}).status_code in (404, 422)
    assert client.get("/api/update") == {"state": "none"}


def test_images_that_were_replaced_are_not_learned_with_the_label_of_the_ones_before(
    opened: Opened, images: Path, trained: RunFolder, tmp_path: Path
) -> None:
    folder = shutil.copytree(images, tmp_path / "images")
    client = Client(opened(folder))
    shutil.copytree(trained.path, client.workspace.project.runs / "train-1")
    shutil.copy(folder / "scratch" / "000.png", folder / "stain" / "000.png")
    reply = client.post("/api/update", {"run": "train-1"})
    assert reply.status_code == 409 and "1 labelled image replaced or removed" in reply.json()["error"]
    assert client.get("/api/update") == {"state": "none"} and not client.workspace.project.update_table.exists()


def test_none_is_started_that_cannot_be_written_down(
    client: Client, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    actions = client.workspace.actions

    def append(lines: Sequence[Line]) -> None:
        raise WriteError(actions.file, "the disk is full")

    monkeypatch.setattr(actions, "append", append)
    assert client.post("/api/update", {"run": "train-1"}).status_code == 507
    assert client.get("/api/update") == {"state": "none"} and not client.workspace.updates.is_running
