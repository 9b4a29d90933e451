"""Metadata of a .tflite file, where Android Studio, MediaPipe and TensorFlow Lite's task library look for it.

Two parts, as TensorFlow Lite's metadata specification has them (tflite-support, metadata_schema.fbs): a buffer of the
model called TFLITE_METADATA says what goes in and out, and names the files that are in a zip archive at the end of the
.tflite file. `unzip model.tflite` extracts them.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from thaw.exports.deployment import INPUT, OUTPUT, Deployment
from thaw.exports.target import label_lines

LABELS_FILE, METADATA_FILE = "labels.txt", "thaw.json"
_BUFFER = "TFLITE_METADATA"
_MODEL_IDENTIFIER, _METADATA_IDENTIFIER = b"TFL3", b"M001"
_PARSER = "1.0.0"
"""The oldest parser that understands everything that is written here."""
_TENSOR_AXIS_LABELS, _DESCRIPTIONS = 2, 1
_IMAGE_PROPERTIES, _RGB = 2, 1
_ALIGNMENT = 16
"""Of weights in bytes, as the schema of the model demands; Python's flatbuffers align them like their elements."""


def with_metadata(model: bytes, deployment: Deployment, size: int) -> bytes:
    """A .tflite file with metadata and class names.

    Args:
        model: The file as the converter writes it.
        deployment: The classes and the metadata.
        size: Side of the images in pixels.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    read = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(_described(deployment, size), np.uint8)
    entry.name, entry.buffer = _BUFFER, len(read.buffers)
    read.buffers.append(buffer)
    # The int8 file is made from one that has metadata already.
    read.metadata = [*(item for item in read.metadata or () if item.name != _BUFFER.encode()), entry]
    read.description = f"Thaw {deployment.metadata['thaw_version']}"
    return _with_files(packed(read), deployment)


def packed(model: Any) -> bytes:
    """The bytes of a model that was read as the objects of its schema."""
    import flatbuffers

    class Builder(flatbuffers.Builder):
        def StartVector(self, size: int, count: int, alignment: int) -> Any:  # noqa: N802
            return super().StartVector(size, count, max(alignment, _ALIGNMENT))

    for buffer in model.buffers:
        if buffer.data is not None:
            # Anything but an array is written byte by byte, which takes a second per megabyte.
            buffer.data = np.frombuffer(buffer.data, np.uint8)
    builder = Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=_MODEL_IDENTIFIER)
    return bytes(builder.Output())


def _with_files(model: bytes, deployment: Deployment) -> bytes:
    """The model followed by the associated files, which are not compressed because readers map them into memory."""
    content = io.BytesIO(model)
    # Appending makes the positions in the archive count from the start of the model, as `unzip` expects.
    with zipfile.ZipFile(content, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(LABELS_FILE), label_lines(deployment.classes, LABELS_FILE))
        metadata = json.dumps(dict(deployment.metadata), indent=2, ensure_ascii=False)
        archive.writestr(zipfile.ZipInfo(METADATA_FILE), metadata)
    return content.getvalue()


def _described(deployment: Deployment, size: int) -> bytes:
    """`ModelMetadata` of the specification, serialised."""
    import flatbuffers

    metadata = deployment.metadata
    table = _Tables(flatbuffers.Builder(1024))
    image_size = table.of({0: table.integer(size), 1: table.integer(size)})
    image = table.of({0: table.byte(_RGB), 1: table.offset(image_size)})
    content = table.of({0: table.byte(_IMAGE_PROPERTIES), 1: table.offset(image)})
    images = table.of({0: table.text(INPUT), 1: table.text(metadata["input"]), 3: table.offset(content)})
    labels = table.file(LABELS_FILE, "one class per line, in the order of the outputs", _TENSOR_AXIS_LABELS)
    description = f"calibrated probabilities, float32 0..1 ({metadata['task']})"
    outputs = table.of({0: table.text(OUTPUT), 1: table.text(description), 6: table.vector([labels])})
    graph = table.of({2: table.vector([images]), 3: table.vector([outputs])})
    model = table.of(
        {
            0: table.text(f"{metadata['architecture']}, trained with Thaw"),
            1: table.text(f"image classification ({metadata['task']})"),
            2: table.text(metadata["bundle_sha256"]),
            3: table.vector([graph]),
            4: table.text(f"Thaw {metadata['thaw_version']}"),
            5: table.text(metadata["license"]),
            6: table.vector([table.file(METADATA_FILE, "what Thaw says about the model", _DESCRIPTIONS)]),
            7: table.text(_PARSER),
        }
    )
    return table.finish(model)


Slot = Callable[[int], None]
"""Writes the field of this number into the table that is being built."""


class _Tables:
    """Tables of a flatbuffer, written innermost first; fields are numbered as the schema lists them."""

    def __init__(self, builder: Any) -> None:
        self._builder = builder

    def of(self, fields: dict[int, Slot]) -> int:
        """A table with these fields; returns its position."""
        self._builder.StartObject(max(fields) + 1)
        for number, write in fields.items():
            write(number)
        return self._builder.EndObject()

    def byte(self, value: int) -> Slot:
        """A constant of an enumeration."""
        return lambda field: self._builder.PrependByteSlot(field, value, 0)

    def integer(self, value: int) -> Slot:
        """An unsigned integer of 32 bits."""
        return lambda field: self._builder.PrependUint32Slot(field, value, 0)

    def offset(self, position: int) -> Slot:
        """A table, string or vector that has been written."""
        return lambda field: self._builder.PrependUOffsetTRelativeSlot(field, position, 0)

    def text(self, value: str) -> Slot:
        """A string, written now."""
        return self.offset(self._builder.CreateString(value))

    def vector(self, positions: Sequence[int]) -> Slot:
        """A vector of tables, written now."""
        self._builder.StartVector(4, len(positions), 4)
        for position in reversed(positions):
            self._builder.PrependUOffsetTRelative(position)
        return self.offset(self._builder.EndVector())

    def file(self, name: str, description: str, kind: int) -> int:
        """An associated file."""
        return self.of({0: self.text(name), 1: self.text(description), 2: self.byte(kind)})

    def finish(self, root: int) -> bytes:
        """The whole flatbuffer."""
        self._builder.Finish(root, file_identifier=_METADATA_IDENTIFIER)
        return bytes(self._builder.Output())
