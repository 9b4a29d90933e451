import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

import thaw
from tests.studio.clients import Client
from tests.studio.conftest import Opened
from thaw.bundle import read_bundle
from thaw.csv_text import csv_text
from thaw.progress import NullReporter
from thaw.recipe import DecisionSettings
from thaw.run_folder import RunFolder
from thaw.studio.slices import extra_columns
from thaw.studio.workspace import Workspace

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def with_columns(opened: Opened, images: Path, trained: RunFolder, tmp_path: Path) -> Workspace:
    """A project of a table with two extra columns, and a finished run."""
    files = sorted(images.glob("*/*.png"))
    cells = [
        (file, file.parent.name, HOSTILE if file.stem < "006" else "b", f"n{row}") for row, file in enumerate(files)
    ]
    table = tmp_path / "table.csv"
    table.write_text(csv_text([("path", "label", "camera", "serial"), *cells]), encoding="utf-8")
    workspace = opened(table)
    shutil.copytree(trained.path, workspace.project.runs / "train-1")
    return workspace


def test_without_a_target_the_run_is_shown_as_it_was_evaluated(client: Client, with_run: RunFolder) -> None:
    found = client.get("/api/decide/train-1")
    evaluations = with_run.read_evaluation().evaluations
    assert found["splits"].keys() == evaluations.keys() == {"val", "test"}
    for split, evaluation in evaluations.items():
        shown = found["splits"][split]
        assert shown["accuracy"] == pytest.approx(vars(evaluation.overall["accuracy"]))
        for one, result in zip(shown["classes"], evaluation.per_class, strict=True):
            assert one["images"] == result.images
            for name in ("recall", "precision"):
                expected = result.metrics[name]
                assert one["rates"][name] == (pytest.approx(vars(expected)) if expected else None)
        assert evaluation.review and shown["review"] == asdict(evaluation.review)
    assert found["settings"]["coverage"] == 0.95 and found["slices"] == []


def test_a_target_is_met_on_validation_by_a_threshold(client: Client, with_run: RunFolder) -> None:
    found = client.post("/api/decide/train-1", {"recall": {"scratch": 1.0}}).json()
    index = found["classes"].index("scratch")
    assert found["splits"]["val"]["classes"][index]["rates"]["recall"]["value"] == 1
    assert found["thresholds"][index] is not None and found["summary"] == "recall of scratch at least 1"
    costs = client.post("/api/decide/train-1", {"costs": {"scratch": {"ok": 1e6}}}).json()
    assert costs["summary"] == "lowest expected cost: scratch>ok=1e+06"
    assert costs["splits"]["val"]["classes"][index]["rates"]["recall"]["value"] >= 0


def test_targets_of_the_run_stay_until_others_or_none_are_given(
    client: Client, with_run: RunFolder, tmp_path: Path
) -> None:
    required = DecisionSettings(recall={"scratch": 0.9}, precision={"scratch": 0.01}, costs={"ok": {"stain": 2}})
    thaw.decide(with_run.path, required, tmp_path / "required", NullReporter())
    shutil.rmtree(with_run.model)
    shutil.move(tmp_path / "required", with_run.model)
    own = "lowest expected cost: ok>stain=2; recall of scratch at least 0.9; precision of scratch at least 0.01"
    assert client.get("/api/decide/train-1")["summary"] == own
    none = {"recall": {}, "precision": {}, "costs": {}}
    asked = {own: {"coverage": 0.5}, "recall of ok at least 0.2": {**none, "recall": {"ok": 0.2}}, "": none}
    for summary, body in asked.items():
        found = client.post("/api/decide/train-1", body).json()
        assert found["summary"] == summary
        bundle = Path(client.post("/api/decide/train-1/bundle", body).json()["bundle"])
        assert read_bundle(bundle).decision.reason == summary
    assert found["thresholds"] == [None] * 3 and not found["costs"]
    assert "Decision: no requirement." in (bundle / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_less_coverage_flags_as_the_new_bundle_does(client: Client, with_run: RunFolder) -> None:
    asked = {"precision": {"ok": 0.01}, "coverage": 0.5, "in_distribution": 0.5}
    before = client.get("/api/decide/train-1")["splits"]["val"]
    after = client.post("/api/decide/train-1", asked).json()["splits"]["val"]
    # Validation is too small for the default.
    assert before["review"]["out_of_distribution"] is None
    assert after["review"]["out_of_distribution"]["value"] > 0
    untouched = {file: file.read_bytes() for file in with_run.path.rglob("*") if file.is_file()}
    written = client.post("/api/decide/train-1/bundle", asked).json()
    again = client.post("/api/decide/train-1/bundle", asked).json()
    assert [Path(one["bundle"]).name for one in (written, again)] == ["train-1-decision-1", "train-1-decision-2"]
    assert all(file.read_bytes() == content for file, content in untouched.items())
    old, new = read_bundle(with_run.model), read_bundle(Path(written["bundle"]))
    assert old.review_policy and new.review_policy
    assert new.review_policy.max_distance < old.review_policy.max_distance
    assert new.decision.reason == "precision of ok at least 0.01"
    action = client.workspace.actions
    assert '"action": "decide"' in action.file.read_text(encoding="utf-8")
    assert "coverage 0.5" in (Path(written["bundle"]) / "MODEL_CARD.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"recall": {"dent": 0.9}}, "no class 'dent'"),
        ({"recall": {"ok": 1.5}}, "recall"),
        ({"precision": {"ok": -1}}, "precision"),
        ({"costs": {"ok": {HOSTILE: 1}}}, "no class"),
        ({"coverage": 1}, "coverage"),
        ({"recall": ["ok"]}, "expects"),
        ({"out": "/tmp/x"}, "expects"),
    ],
)
def test_malformed_targets_write_nothing(client: Client, with_run: RunFolder, asked: object, reason: str) -> None:
    for path in ("/api/decide/train-1", "/api/decide/train-1/bundle"):
        reply = client.post(path, asked)
        assert reply.status_code == 422 and reason in reply.json()["error"]
    assert not list(client.workspace.project.bundles.glob("*"))


def test_nothing_is_decided_for_another_run(client: Client) -> None:
    assert client.http.get("/api/decide/train-1").status_code == 404
    assert client.post("/api/decide/..%2ftrain-1/bundle").status_code == 404


def test_slices_of_extra_columns_have_the_worst_one_in_front(with_columns: Workspace) -> None:
    found = Client(with_columns).get("/api/decide/train-1")
    assert {(one["column"], one["value"]) for one in found["slices"]} >= {("camera", HOSTILE), ("camera", "b")}
    cameras = [one["images"] for one in found["slices"] if one["column"] == "camera"]
    assert sum(cameras) == found["splits"]["test"]["images"]
    highs = [one["accuracy"]["high"] for one in found["slices"]]
    assert highs == sorted(highs)


def test_columns_that_thaw_uses_are_not_extra(with_columns: Workspace) -> None:
    columns = extra_columns(with_columns.project, with_columns.images)
    assert list(columns) == ["camera", "serial"] and set(columns["camera"]) == {HOSTILE, "b"}
    assert columns["serial"] == [f"n{row}" for row in range(36)]


def test_images_that_were_replaced_are_in_no_slice(with_columns: Workspace) -> None:
    client = Client(with_columns)
    assert client.get("/api/decide/train-1")["slices"]
    with_columns.images.digests[:] = reversed(with_columns.images.digests)
    assert client.get("/api/decide/train-1")["slices"] == []
