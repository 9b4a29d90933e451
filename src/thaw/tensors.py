"""Tensors as the content of a safetensors file: the same bytes whenever tensors and metadata are the same.

The library alone writes metadata in an order that changes with each call.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from safetensors.torch import save
from torch import Tensor

_LENGTH, _ALIGNMENT = 8, 8
_METADATA = "__metadata__"


def bytes_of_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """The content of a safetensors file with contiguous tensors on the CPU, and metadata if there are any."""
    if not metadata:
        return save(dict(tensors))
    content = save(dict(tensors), dict(metadata))
    header, end = _header(content)
    header[_METADATA] = dict(sorted(header[_METADATA].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % _ALIGNMENT)
    return b"".join([len(text).to_bytes(_LENGTH, "little"), text, memoryview(content)[end:]])


def metadata_of(content: bytes) -> dict[str, str]:
    """The metadata of a safetensors file, of which the beginning with the header is enough.

    Raises `ValueError` where it is damaged, `KeyError` where it has none.
    """
    return _header(content)[0][_METADATA]


def _header(content: bytes) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and the bytes that it takes."""
    end = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    return json.loads(content[_LENGTH:end]), end
