import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.studio.clients import Client
from tests.studio.conftest import Opened
from thaw.data.dataset import Dataset
from thaw.studio.workspace import Workspace

EXCLUDED = {"excluded": True}
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "=cmd|'/c calc'!A0".replace("|", ""),
    "\"'`${1}",
    "..",
    "con",
    "label:x",
    "数 \u202e x",
]


def test_the_state_has_classes_with_counts(client: Client) -> None:
    state = client.get("/api/state")
    assert [(one["name"], one["images"]) for one in state["classes"]] == [("ok", 12), ("scratch", 12), ("stain", 12)]
    assert (state["total"], state["unlabelled"], state["excluded"], state["undo"]) == (36, 0, 0, None)


def test_images_are_filtered_by_label_state_and_file_name(client: Client) -> None:
    client.edit([0], EXCLUDED)
    client.edit([1, 2], None)
    assert client.get("/api/images")["ids"] == list(range(36))
    assert client.get("/api/images", show="excluded")["ids"] == [0]
    assert client.get("/api/images", show="unlabelled")["ids"] == [1, 2]
    assert client.get("/api/images", show="label:scratch")["ids"] == list(range(12, 24))
    assert client.get("/api/images", show="label:scratch", text="SCRATCH/003")["ids"] == [15]
    assert client.get("/api/images", show="pile:duplicates")["ids"] == []


def test_an_edit_changes_many_images_and_is_undone_at_once(client: Client) -> None:
    done = client.edit([3, 4, 20], "rolled in").json()
    assert done["marks"] == [{"id": row, "mark": "rolled in"} for row in (3, 4, 20)]
    assert done["undo"] == {"edit": 1, "sentence": "3 images labelled rolled in"}
    assert done["classes"][3] == {"name": "rolled in", "images": 3}
    undone = client.post("/api/undo", {"edit": 1}).json()
    assert [one["mark"] for one in undone["marks"]] == ["ok", "ok", "scratch"] and undone["undo"] is None


def test_of_two_windows_the_later_one_is_told_of_the_present_label(client: Client) -> None:
    assert client.edit([3], "stain", seen="ok").status_code == 200
    late = client.edit([3, 4], "scratch", seen="ok")
    assert late.status_code == 409 and "another window" in late.json()["error"]
    assert late.json()["marks"] == [{"id": 3, "mark": "stain"}, {"id": 4, "mark": "ok"}]
    assert client.post("/api/undo", {"edit": 7}).status_code == 409
    assert [row["mark"] for row in client.get("/api/rows", ids="3,4")] == ["stain", "ok"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_class_name_is_a_name_like_others(client: Client, workspace: Workspace, name: str) -> None:
    assert client.edit([0], name).status_code == 200
    assert client.get("/api/images", show=f"label:{name}")["ids"] == [0]
    rows = list(csv.reader(io.StringIO(client.http.get("/labels.csv").text)))
    assert rows[1][1] == name
    lines = (workspace.project.labels).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["to"] for line in lines] == [name]


@pytest.mark.parametrize(
    "to", ["", " ", "a|b", "a\nb", "a\0b", "OK", "x" * 101, 1, 1.5, True, [], ["ok"], {}, {"excluded": False}, {"x": 1}]
)
def test_what_is_no_label_is_refused(untouched: Client, to: Any) -> None:
    reply = untouched.edit([0], to)
    assert reply.status_code == 422 and reply.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        [],
        "x",
        {"images": []},
        {"images": [], "to": "ok"},
        {"images": [{"id": -1, "mark": None}], "to": "ok"},
        {"images": [{"id": "0", "mark": None}], "to": "ok"},
        {"images": [{"id": 0}], "to": "ok", "more": 1},
        {"images": [{"id": 0, "path": "/etc/passwd", "mark": None}], "to": "ok"},
        {"images": [{"id": 1e30, "mark": None}], "to": "ok"},
        {"images": {"id": 0}, "to": "ok"},
        {"images": [{"id": 0, "mark": {"a": {"b": {}}}}], "to": "ok"},
    ],
)
def test_a_malformed_edit_is_refused(untouched: Client, body: Any) -> None:
    assert untouched.post("/api/edits", body).status_code == 422


def test_an_image_that_is_not_there_is_not_found(untouched: Client) -> None:
    body = {"images": [{"id": 36, "mark": None}], "to": "ok"}
    assert untouched.post("/api/edits", body).status_code == 404
    assert untouched.http.get("/api/rows", params={"ids": "36"}).status_code == 404


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 50_000, b'{"edit": NaN}', b'{"edit": 1e999}'])
def test_a_body_that_is_no_json_is_refused(untouched: Client, content: bytes) -> None:
    headers = {
        "Origin": "http://127.0.0.1:8123",
        "X-Thaw-CSRF": untouched.access.csrf,
        "Content-Type": "application/json",
    }
    assert untouched.http.post("/api/undo", content=content, headers=headers).status_code in (400, 422)


@pytest.mark.parametrize("ids", ["", ",", "a", "-1", "1,,2", "1 2", "٣", "1;2", "9" * 30, ",".join(["1"] * 3000)])
def test_malformed_ids_are_refused(untouched: Client, ids: str) -> None:
    assert untouched.http.get("/api/rows", params={"ids": ids}).status_code == 422


@pytest.mark.parametrize("show", ["", "x", "Label:ok", "all:", "pile", "../all", "\0"])
def test_an_unknown_filter_shows_nothing(untouched: Client, show: str) -> None:
    reply = untouched.http.get("/api/images", params={"show": show})
    assert reply.status_code == 404 or reply.json()["ids"] == []


def test_images_are_sent_as_jpegs_that_were_made_here(untouched: Client) -> None:
    (row,) = untouched.get("/api/rows", ids="12")
    for kind in ("thumbnails", "full"):
        reply = untouched.http.get(f"/{kind}/12/{row['digest']}")
        assert reply.headers["content-type"] == "image/jpeg" and "immutable" in reply.headers["cache-control"]
        assert Image.open(io.BytesIO(reply.content)).format == "JPEG"


MANY_DIGITS = "9" * 5000


@pytest.mark.parametrize("path", ["thumbnails/{}/x", "full/{}/x", "api/similar/{}"])
@pytest.mark.parametrize("number", [MANY_DIGITS, "36", "-1", "1.5", "x", "٣"])
def test_what_is_no_number_of_an_image_is_not_found(untouched: Client, path: str, number: str) -> None:
    reply = untouched.http.get(f"/{path.format(number)}")
    assert reply.status_code == 404 and "no such image" in reply.json()["error"]


@pytest.mark.parametrize(
    "place", ["12/x", "12/", "99/{0}", "-1/{0}", "../12/{0}", "12/{0}/x", "13/{0}", "12/{0:.8}", "12/{0:.1}"]
)
def test_other_places_have_no_image(untouched: Client, place: str) -> None:
    digest = untouched.get("/api/rows", ids="12")[0]["digest"]
    assert untouched.http.get(f"/thumbnails/{place.format(digest)}").status_code == 404


def test_the_table_of_labels_trains_the_same_images(client: Client, workspace: Workspace, tmp_path: Path) -> None:
    client.edit([0], EXCLUDED)
    client.edit([1], None)
    client.edit([2], "stain")
    table = tmp_path / "labels.csv"
    table.write_bytes(client.http.get("/labels.csv").content)
    dataset = Dataset.open(table)
    assert len(dataset) == 34 and sorted(dataset.classes) == ["ok", "scratch", "stain"]
    found = {
        Path(path).name: labels
        for path, labels in zip(*map(dataset.manifest.column, ("path", "labels")), strict=True)
        if "ok" in path
    }
    assert "000.png" not in found and "001.png" not in found and found["002.png"] == ["stain"]


def test_files_of_the_user_are_not_touched(opened: Opened, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        Image.new("RGB", (8, 8), "red").save(folder / label / "=x<b>.png")
    (folder / "a" / "broken.png").write_bytes(b"<script>alert(1)</script>")
    before = {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in folder.rglob("*")}
    client = Client(opened(folder))
    client.edit([0], EXCLUDED)
    rows = client.get("/api/rows", ids="0,1,2")
    assert client.http.get(f"/thumbnails/0/{rows[0]['digest']}").status_code == 200
    refused = client.http.get(f"/full/1/{rows[1]['digest']}")
    assert refused.status_code == 422 and refused.headers["content-type"] == "application/json"
    assert {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in folder.rglob("*")} == before
