"""The binary tensor extension of the Open Inference Protocol: tensors as bytes after the JSON object of a message.

A header gives the length of the JSON object, and `binary_data_size` in the parameters of a tensor that of its bytes.
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_binary_data.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thaw.web.limits import RequestRefused

EXTENSION = "binary_tensor_data"
HEADER = "Inference-Header-Content-Length"
_LENGTH_BYTES = 4
_MAX_DIGITS = 12


@dataclass(frozen=True)
class OutputTensor:
    """A tensor to send: float32 or bool values, in the JSON object or as bytes after it."""

    name: str
    datatype: str
    values: np.ndarray
    is_binary: bool


def split(body: bytes, json_length: str | None) -> tuple[bytes, bytes]:
    """The JSON object of a body, and the bytes after it; raises `RequestRefused`.

    Args:
        body: The body.
        json_length: The value of the header; without it the whole body is JSON.
    """
    if json_length is None:
        return body, b""
    is_number = json_length.isascii() and json_length.isdecimal() and len(json_length) <= _MAX_DIGITS
    if not is_number or int(json_length) > len(body):
        raise RequestRefused(400, "bad_request", f"{HEADER}: not a length from 0 to that of the body, {len(body)}")
    return body[: int(json_length)], body[int(json_length) :]


def byte_strings(data: bytes, count: int) -> list[bytes]:
    """The elements of a BYTES tensor, each after its length in four bytes; raises `RequestRefused`."""
    found, position = [], 0
    for _ in range(count):
        start = position + _LENGTH_BYTES
        position = start + int.from_bytes(data[position:start], "little")
        found.append(data[start:position])
    if position != len(data):
        reason = f"the lengths of {count} items do not add up to the {len(data)} bytes after the JSON object"
        raise RequestRefused(400, "bad_request", f"inputs.0: {reason}")
    return found


def message(about: Mapping[str, Any], tensors: Sequence[OutputTensor]) -> tuple[bytes, int | None]:
    """A message with tensors as `outputs`, and the length of its JSON object if bytes follow it."""
    outputs, parts = [], []
    for tensor in tensors:
        output = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.values.shape)}
        if tensor.is_binary:
            little_endian = tensor.values.dtype.newbyteorder("<")
            parts.append(tensor.values.astype(little_endian, copy=False).tobytes())
            outputs.append({**output, "parameters": {"binary_data_size": len(parts[-1])}})
        else:
            outputs.append({**output, "data": tensor.values.ravel().tolist()})
    head = json.dumps({**about, "outputs": outputs}, separators=(",", ":")).encode()
    return b"".join([head, *parts]), len(head) if parts else None
