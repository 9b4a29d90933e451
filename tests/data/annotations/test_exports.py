"""Exports of annotation tools become rows of labelled images, or one sentence about what is wrong with them."""

import json
from pathlib import Path
from typing import Any

import pytest

from thaw.data.annotations.places import places_of
from thaw.data.dataset import Dataset
from thaw.data.tables import read_labels, read_table
from thaw.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "below/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def export(folder: Path, content: Any, name: str = "export.json") -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def labels(file: Path) -> dict[str, list[str]]:
    table = read_table(file).table
    return dict(zip(table.column("path").to_pylist(), table.column("labels").to_pylist(), strict=True))


def task(image: str, *choices: list[str], **more: Any) -> dict[str, Any]:
    results = [{"type": "choices", "from_name": "kind", "value": {"choices": chosen}} for chosen in choices]
    return {"id": 7, "data": {"image": image}, "annotations": [{"result": [result]} for result in results], **more}


def coco(**changes: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}, {"id": 3, "file_name": "c.png"}],
        "annotations": [{"image_id": 1, "category_id": 5}, {"image_id": 2, "category_id": 6}],
        "categories": [{"id": 5, "name": "ok"}, {"id": 6, "name": "crack"}],
        **changes,
    }


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><labels><label><name>ok</name></label></labels></task></meta>
<image id="0" name="a.png" subset="Train" width="1" height="1"><tag label="ok" source="manual"/></image>
<image id="1" name="below/c.png" subset="val"><tag label="crack"><attribute name="x">1</attribute></tag></image>
<image id="2" name="b.png" subset="Train"><box label="ok"/></image></annotations>"""


def test_label_studio_json_gives_the_choices_of_each_task(folder: Path) -> None:
    tasks = [
        task("/data/upload/3/1f2e3d4c-a.png", ["ok"]),
        task("/data/local-files/?d=below%2Fc.png", ["crack"], predictions=[{"result": []}]),
        task("s3://bucket/b.png", ["crack"]),
        task("/data/upload/3/other.png"),
    ]
    file = export(folder, tasks)
    assert labels(file) == {"a.png": ["ok"], "below/c.png": ["crack"], "b.png": ["crack"]}
    assert "export.json: 1 image without a label, not used" in read_table(file).notes
    assert Dataset.open(file).classes == ("crack", "ok")


def test_label_studio_json_min_gives_one_or_several_labels(folder: Path) -> None:
    tasks = [
        {"id": 1, "image": "a.png", "kind": "ok", "annotator": 1, "lead_time": 2.0},
        {"id": 2, "image": "b.png", "kind": {"choices": ["crack", "stain"]}},
        {"id": 3, "image": "below/c.png"},
    ]
    assert labels(export(folder, tasks)) == {"a.png": ["ok"], "b.png": ["crack", "stain"]}
    assert Dataset.open(folder / "export.json").task == "multilabel"


def test_a_skipped_annotation_is_no_label_and_annotators_who_agree_count_once(folder: Path) -> None:
    skipped = task("b.png", ["ok"])
    skipped["annotations"][0]["was_cancelled"] = True
    assert labels(export(folder, [task("a.png", ["ok"], ["ok"]), skipped])) == {"a.png": ["ok"]}


def test_annotators_who_disagree_are_named(folder: Path) -> None:
    file = export(folder, [task("a.png", ["ok"], ["crack"])])
    with pytest.raises(DataError, match=r"task 7 and task 7: a\.png has conflicting labels, ok and crack"):
        read_table(file)


def test_cvat_tags_are_labels_and_subsets_splits(folder: Path) -> None:
    rows = read_table(export(folder, CVAT, "annotations.xml"))
    assert labels(rows.source) == {"a.png": ["ok"], "below/c.png": ["crack"]}
    assert rows.table.column("split").to_pylist() == ["train", "val"]
    assert "annotations.xml: 1 image without a label, not used" in rows.notes
    assert "annotations.xml: 1 shape such as boxes, not used" in rows.notes


def test_coco_categories_are_labels_each_once(folder: Path) -> None:
    twice = [{"image_id": 1, "category_id": 5}, {"image_id": 1, "category_id": 5}, {"image_id": 2, "category_id": 6}]
    file = export(folder, coco(annotations=twice))
    assert labels(file) == {"a.png": ["ok"], "b.png": ["crack"]}
    several = [{"image_id": 1, "category_id": 5}, {"image_id": 1, "category_id": 6}]
    assert Dataset.open(export(folder, coco(annotations=several))).task == "multilabel"


@pytest.mark.parametrize(
    ("one", "other"), [("x/a.png", "y/a.png"), ("x/a.png", "a.png"), ("1f2e3d4c-a.png", "00ff00ff-a.png")]
)
def test_two_images_are_not_both_one_file(folder: Path, one: str, other: str) -> None:
    images = [{"id": 1, "file_name": one}, {"id": 2, "file_name": other}]
    file = export(folder, coco(images=images))
    with pytest.raises(DataError, match=rf"\({one}\) and .* \({other}\) would both be a\.png; keep both"):
        read_table(file)
    for name in (one, other):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    assert labels(file) == {one: ["ok"], other: ["crack"]}


def test_images_may_be_in_another_folder_than_the_export(folder: Path) -> None:
    (folder / "downloads").mkdir()
    file = export(folder / "downloads", [task("/data/upload/1/00ff00ff-b.png", ["ok"])])
    assert read_labels(file, folder).table.column("path").to_pylist() == ["b.png"]


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("a.png", ["a.png"]),
        ("x/a.png", ["x/a.png", "a.png"]),
        ("/x/a.png", ["/x/a.png", "x/a.png", "a.png"]),
        ("https://host/x/a%20b.png?token=1", ["x/a b.png", "a b.png"]),
        ("/data/local-files/?d=x/a.png", ["x/a.png", "a.png"]),
        ("1f2e3d4c-a.png", ["1f2e3d4c-a.png", "a.png"]),
    ],
)
def test_an_image_is_looked_for_under_its_name_and_the_ends_of_it(name: str, places: list[str]) -> None:
    assert places_of(name) == places


ENTITIES = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "boom"><!ENTITY c "&b;&b;">]><annotations>&c;</annotations>'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", "", "line 1, character 1: Expecting value"),
        ("x.json", "[" * 100_000, "nested too deeply"),
        ("x.json", "[]", "neither an export of Label Studio"),
        ("x.json", [{"path": "a.png", "label": "ok"}], r"neither .* nor COCO; a table of your own is .*\.jsonl file"),
        ("x.json", {"images": [], "annotations": {}, "categories": []}, "neither an export of Label Studio"),
        ("x.json", coco(images=[{"id": 1}]), "image 1: 'file_name' is missing, where text is expected"),
        ("x.json", coco(categories=[{"id": True, "name": "a"}]), "category 1: 'id' is true, where a whole number"),
        ("x.json", coco(annotations=[{"image_id": 1, "category_id": 9}]), "annotation 1: there is no category 9"),
        ("x.json", coco(annotations=[{"image_id": 9, "category_id": 5}]), "of image 9, which is not listed"),
        ("x.json", coco(images=[{"id": 1, "file_name": "a.png"}] * 2), "image 2: another image has the id 1"),
        ("x.json", [{"data": {"text": "hello"}, "annotations": []}], "task 1: has no image"),
        ("x.json", [{"data": [], "annotations": []}], "task 1: 'data' is .*, where an object is expected"),
        ("x.json", [{"data": {"image": "a.png"}, "annotations": {"a": 1}}], "annotations are not a list of objects"),
        ("x.json", [task("a.png", [3])], "task 7: a choice is not text"),  # type: ignore[list-item]
        ("x.json", [task("a.png")], "no image in it has a label"),
        ("x.json", [{"id": 1, "image": "a.png", "kind": "ok", "quality": "bad"}], r"several questions \(kind, quality"),
        ("x.xml", "", "no element found"),
        ("x.xml", "<annotations><image", "line 1, column"),
        ("x.xml", "<annotation><size/></annotation>", "outermost element is annotation, not annotations"),
        ("x.xml", "<annotations><track/></annotations>", "export of a video"),
        ("x.xml", "<annotations><image/></annotations>", "image 1: an element has no name"),
        ("x.xml", "<annotations><image name='a.png'><box/></image></annotations>", "1 shape such as boxes, but no tag"),
        ("x.xml", ENTITIES, "document type declaration"),
    ],
)
def test_what_is_wrong_with_an_export_is_one_sentence(folder: Path, name: str, content: Any, message: str) -> None:
    file = export(folder, content, name)
    with pytest.raises(DataError, match=message) as raised:
        Dataset.open(file)
    assert str(raised.value).startswith(f"{file}: ") and "\n" not in str(raised.value)


def test_no_file_outside_an_export_is_read(folder: Path) -> None:
    (folder / "secret").write_text("secret")
    text = f'<!DOCTYPE a SYSTEM "{folder}/secret"><annotations/>'
    with pytest.raises(DataError, match="document type declaration"):
        Dataset.open(export(folder, text, "x.xml"))


def test_a_missing_export_is_reported(folder: Path) -> None:
    with pytest.raises(DataError, match=r"export\.json: no such file"):
        Dataset.open(folder / "export.json")
