"""Reads a JSON or XML file as the export of whichever annotation tool wrote it."""

from __future__ import annotations

import json
from pathlib import Path

from thaw.data.annotations.annotated import Annotations
from thaw.data.annotations.coco import is_coco, read_coco
from thaw.data.annotations.cvat import read_cvat
from thaw.data.annotations.label_studio import is_label_studio, read_label_studio


def read_annotations(file: Path) -> Annotations:
    """The labelled images of an export: Label Studio or COCO in a .json file, CVAT in an .xml file.

    Raises:
        ValueError: The file is damaged, or none of these; the message says what is wrong with it.
    """
    annotations = read_cvat(file) if file.suffix.lower() == ".xml" else _read_json(file)
    if not annotations.images:
        raise ValueError("no image in it has a label")
    return annotations


def _read_json(file: Path) -> Annotations:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}, character {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise ValueError("its objects are nested too deeply") from error
    if is_coco(content):
        return read_coco(content)
    if is_label_studio(content):
        return read_label_studio(content)
    raise ValueError(
        "neither an export of Label Studio (JSON or JSON-MIN) nor COCO; a table of your own is one object "
        '{"path": …, "label": …} a line in a .jsonl file'
    )
