import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.runs import without_test
from tests.studio.clients import Client
from thaw.errors import DataError, TrainingError, WriteError
from thaw.evaluation.compare import compare
from thaw.evaluation.records import read_records
from thaw.exports.certificate import Certificate
from thaw.exports.export import Exported
from thaw.run_folder import RunFolder
from thaw.studio import shipping
from thaw.studio.promotions import Promotions
from thaw.studio.shipping import compare_on_labels, shippable
from thaw.studio.workspace import Workspace


@pytest.fixture
def with_two(workspace: Workspace, with_run: RunFolder) -> Client:
    """A window of a project with two finished runs."""
    shutil.copytree(with_run.path, workspace.project.runs / "train-2")
    return Client(workspace)


def test_promotions_and_roll_backs_survive_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "promotions.jsonl"
    promotions = Promotions(file)
    promotions.promote("train-1", None, "")
    promotions.promote("train-2", "train-1", "better")
    promotions.roll_back("train-2")
    with pytest.raises(TrainingError, match="no earlier"):
        promotions.roll_back("train-1")
    with pytest.raises(TrainingError, match="already"):
        promotions.promote("train-1", "train-1", "")
    with pytest.raises(TrainingError, match="train-1 is promoted by now"):
        promotions.promote("train-3", "train-2", "")
    promotions.promote("train-3", "train-1", "")
    promotions.close()
    again = Promotions(file)
    assert (again.champion, again.previous) == ("train-3", "train-1") and len(again.lines) == 4
    again.close()
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [line["action"] for line in lines] == ["promote", "promote", "roll back", "promote"]


@pytest.mark.parametrize("line", ["{}", '{"action": "roll back"}', '{"action": "promote"}', "[]"])
def test_a_damaged_file_of_promotions_is_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "promotions.jsonl"
    file.write_text(f"{line}\n", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(DataError, match="restore the file"):
            Promotions(file)


def test_one_click_promotes_and_one_rolls_back(with_two: Client) -> None:
    assert with_two.get("/api/ship")["commands"] == []
    assert with_two.post("/api/ship/promote", {"name": "train-1", "champion": None}).status_code == 200
    state = with_two.post("/api/ship/promote", {"name": "train-2", "champion": "train-1"}).json()
    assert (state["champion"], state["previous"]) == ("train-2", "train-1")
    assert "No significant difference" in state["steps"][0]["verdict"]
    assert state["commands"][1] == f"thaw serve {with_two.workspace.project.runs / 'train-2' / 'model'}"
    assert with_two.post("/api/ship/promote", {"name": "train-1", "champion": "train-1"}).status_code == 409
    assert with_two.post("/api/ship/rollback", {"champion": "train-2"}).json()["champion"] == "train-1"
    assert with_two.post("/api/ship/rollback", {"champion": "train-1"}).status_code == 409


def test_a_promoted_run_that_is_gone_is_said_and_replaced(with_two: Client) -> None:
    with_two.post("/api/ship/promote", {"name": "train-1", "champion": None})
    shutil.rmtree(with_two.workspace.project.runs / "train-1")
    state = with_two.get("/api/ship")
    assert state["is_missing"] and not state["commands"] and state["classifiers"] == ["train-2"]
    state = with_two.post("/api/ship/promote", {"name": "train-2", "champion": "train-1"}).json()
    assert state["champion"] == "train-2" and state["steps"][0]["verdict"].startswith("not compared")


def test_the_paired_test_is_that_of_thaw_compare_on_the_labels_of_now(with_two: Client, trained: RunFolder) -> None:
    workspace = with_two.workspace
    bundle = with_two.post("/api/decide/train-2/bundle", {"recall": {"stain": 1.0}}).json()["bundle"]
    name = Path(bundle).name
    assert with_two.get("/api/ship")["classifiers"] == ["train-2", name, "train-1"]
    pair = [shippable(workspace.project, one) for one in ("train-1", name)]
    assert pair[0] and pair[1]
    found = compare_on_labels(pair[0], pair[1], workspace.images, workspace.labels.marks())
    first = read_records(trained.predictions, "test")
    assert found.images == len(first.paths)
    same = compare_on_labels(pair[0], pair[0], workspace.images, workspace.labels.marks())
    assert same == replace(compare(first, first), differences=same.differences)
    row = workspace.images.row_of_file(workspace.images.manifest.root / first.paths[0])
    assert row is not None
    with_two.edit([row], None)
    other = workspace.images.row_of_file(workspace.images.manifest.root / first.paths[1])
    assert other is not None
    workspace.images.digests[other] = workspace.images.digests[row]
    assert with_two.get("/api/ship/compare", first="train-1", second=name)["images"] == found.images - 2


def test_a_run_without_test_images_is_promoted_without_a_comparison(with_two: Client) -> None:
    without_test(with_two.workspace.project.runs / "train-2")
    reply = with_two.http.get("/api/ship/compare", params={"first": "train-1", "second": "train-2"})
    assert reply.status_code == 422 and reply.json()["error"].startswith("train-2: has no test images to compare on")
    with_two.post("/api/ship/promote", {"name": "train-1", "champion": None})
    state = with_two.post("/api/ship/promote", {"name": "train-2", "champion": "train-1"}).json()
    assert state["champion"] == "train-2"
    assert state["steps"][0]["verdict"].startswith("not compared: train-2: has no test images")


def exported(client: Client) -> dict[str, Any]:
    """What is said of train-1, exported to torch by the job that a request submits."""
    assert client.post("/api/ship/export", {"name": "train-1", "to": "torch"}).status_code == 200
    submitted = client.workspace.background._jobs.get()
    assert submitted
    submitted[1]()
    found: dict[str, Any] = client.get("/api/ship")["exports"][0]
    return found


def test_an_export_is_a_job_that_is_written_down(with_two: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def export_bundle(bundle: Path, to: str, out: Path) -> Exported:
        assert (bundle.parent.name, to) == ("train-1", "torch")
        return Exported(out, 5, Certificate(images=3, max_difference=1e-7), "hint", decision="recall of ok at least 1")

    monkeypatch.setattr(shipping, "export_bundle", export_bundle)
    assert "torch" in with_two.get("/api/ship")["formats"]
    found = exported(with_two)
    assert found["certificate"] == {"images": 3, "max_difference": 1e-7}
    assert found["decision"] == "recall of ok at least 1"
    assert found["path"] == str(with_two.workspace.project.exports / "train-1.pt2")
    line = json.loads(with_two.workspace.actions.file.read_text(encoding="utf-8").splitlines()[-1])
    assert line["action"] == "export" and line["certificate"] == found["certificate"]


@pytest.mark.slow
def test_an_export_is_certified(with_two: Client) -> None:
    found = exported(with_two)
    assert found["certificate"]["images"] > 0 and found["certificate"]["max_difference"] < 1e-3
    assert Path(found["path"]).is_file()
    with pytest.raises(WriteError, match="exists"):
        exported(with_two)


@pytest.mark.parametrize("name", ["../train-1", "train-9", "train-1-decision-1", "", "train-1/model", "<b>"])
def test_other_names_are_no_classifiers(with_two: Client, name: str) -> None:
    for path, body in (("promote", {"champion": None}), ("export", {"to": "torch"})):
        assert with_two.post(f"/api/ship/{path}", {"name": name, **body}).status_code == 404
    assert with_two.http.get("/api/ship/compare", params={"first": name, "second": "train-1"}).status_code == 404


@pytest.mark.parametrize("to", ["", "zip", "../onnx"])
def test_other_formats_are_refused(with_two: Client, to: str) -> None:
    assert with_two.post("/api/ship/export", {"name": "train-1", "to": to}).status_code == 422
