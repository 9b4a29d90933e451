"""Label Studio: the chosen labels of image classification, in its exports JSON and JSON-MIN.

An annotation that was skipped, and predictions of a model, are no labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from thaw.data.annotations.annotated import AnnotatedImage, Annotations, field_of, is_objects, without_label
from thaw.data.annotations.places import places_of
from thaw.data.table_paths import is_image
from thaw.formats import listed

_IMAGE = ("image", "img", "image_url", "url", "path")
_OF_MIN = frozenset({"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement", *_IMAGE})
"""Fields of JSON-MIN that are not the answer to a question."""


def is_label_studio(content: Any) -> bool:
    """Whether the content of a JSON file is an export of Label Studio, JSON or JSON-MIN."""
    if not is_objects(content):
        return False
    return all("data" in task for task in content) or all("id" in task and _image_in(task) for task in content)


def read_label_studio(content: Any) -> Annotations:
    """The tasks with an annotation; one that annotators labelled differently has a row for each labelling.

    Raises:
        ValueError: A task has no image, a field is of another type, or the labels answer several questions.
    """
    is_full = "data" in content[0]
    images, unlabelled = [], 0
    answers = [_annotated(task) if is_full else _answered(task) for task in content]
    _check_one_question({question for found in answers for question, _ in found})
    for number, (task, found) in enumerate(zip(content, answers, strict=True), start=1):
        name = f"task {task.get('id', number)}"
        places = places_of(_image_of(field_of(task, "data", dict, name) if is_full else task, name))
        different = {frozenset(labels): labels for _, labels in found}
        images += [AnnotatedImage(places, labels, name) for labels in different.values()]
        unlabelled += not found
    return Annotations(images, without_label(unlabelled))


def _annotated(task: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """(question, labels) of each annotation in a task of the export JSON."""
    where = f"task {task.get('id', '')}".strip()
    return [
        answer
        for annotation in _objects(task.get("annotations") or task.get("completions") or [], where)
        if not annotation.get("was_cancelled") and not annotation.get("skipped")
        for answer in _choices(_objects(annotation.get("result") or [], where), where)
    ]


def _choices(results: Sequence[Mapping[str, Any]], where: str) -> Iterator[tuple[str, list[str]]]:
    """(question, labels) of each result that is a choice."""
    for result in results:
        if result.get("type") == "choices":
            value = field_of(result, "value", dict, where)
            yield str(result.get("from_name")), _texts(field_of(value, "choices", list, where), where)


def _answered(task: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """(question, labels) of a task of the export JSON-MIN."""
    where, found = f"task {task.get('id', '')}".strip(), []
    for name, value in task.items():
        if name in _OF_MIN or (isinstance(value, str) and is_image(value)):
            continue
        if isinstance(value, str):
            found.append((name, [value]))
        elif isinstance(value, dict) and isinstance(value.get("choices"), list):
            found.append((name, _texts(value["choices"], where)))
    return found


def _check_one_question(questions: set[str]) -> None:
    if len(questions) > 1:
        raise ValueError(
            f"its labels answer several questions ({listed(sorted(questions))}); export a project with one, or write a "
            "table with the columns path and label"
        )


def _image_of(data: Mapping[str, Any], where: str) -> str:
    image = _image_in(data)
    if image is None:
        raise ValueError(f"{where}: has no image")
    return image


def _image_in(data: Any) -> str | None:
    """The name of the image: in the field of a usual name, else in the first that names an image file."""
    if not isinstance(data, dict):
        return None
    named = [data[name] for name in _IMAGE if isinstance(data.get(name), str) and data[name].strip()]
    others = [value for value in data.values() if isinstance(value, str) and is_image(value)]
    return next(iter([*named, *others]), None)


def _objects(content: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise ValueError(f"{where}: its annotations are not a list of objects")
    return content


def _texts(content: list[Any], where: str) -> list[str]:
    if not all(isinstance(item, str) for item in content):
        raise ValueError(f"{where}: a choice is not text")
    return content
