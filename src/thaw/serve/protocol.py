"""Messages of the Open Inference Protocol, version 2, over JSON.

https://github.com/kserve/open-inference-protocol. There is one input: datatype UINT8 with shape [N, H, W, 3], RGB
images as nested or flat numbers, or BYTES with shape [N], image files as base64; both are processed as files are. The
outputs are `probabilities`, FP32 [N, classes], and `out_of_distribution`, BOOL [N], if the classifier has a review
policy.
"""

from __future__ import annotations

import base64
import binascii
import io
from itertools import chain
from math import prod
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from thaw.prediction.predict import Prediction
from thaw.serve.limits import RequestRefused

PROBABILITIES, OUT_OF_DISTRIBUTION = "probabilities", "out_of_distribution"
WHITE = 255
MAX_MESSAGE_LENGTH = 300
INPUTS = (
    {"name": "images", "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
    {"name": "images", "datatype": "BYTES", "shape": [-1]},
)
"""The two forms of the one input."""

_Short = Annotated[str, Field(max_length=256)]
_Size = Annotated[int, Field(ge=1, le=1 << 20)]


class _Message(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class InputTensor(_Message):
    """One tensor of a request."""

    name: _Short
    datatype: Literal["UINT8", "BYTES"]
    shape: Annotated[list[_Size], Field(min_length=1, max_length=4)]
    data: list[Any]


class RequestedOutput(_Message):
    """One requested tensor."""

    name: Literal["probabilities", "out_of_distribution"]


class InferRequest(_Message):
    """A request for inference; other keys are ignored, as the protocol defines."""

    id: _Short | None = None
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=1)]
    outputs: Annotated[list[RequestedOutput], Field(max_length=8)] = []


def read_images(body: bytes, most: int) -> tuple[InferRequest, list[bytes]]:
    """The request in a body, and its images as encoded files.

    Raises:
        RequestRefused: The request is invalid; the message names the first problem.
    """
    request = _read_request(body)
    tensor = request.inputs[0]
    if tensor.shape[0] > most:
        raise RequestRefused(413, "too_many_images", f"{tensor.shape[0]} images; a request may have {most}")
    return request, _encoded_files(tensor) if tensor.datatype == "BYTES" else _arrays_as_files(tensor)


def response(request: InferRequest, name: str, predictions: list[Prediction], classes: int) -> dict[str, Any]:
    """The response to a request, as plain values."""
    count = len(predictions)
    values = list(chain.from_iterable(prediction.probabilities for prediction in predictions))
    available: dict[str, dict[str, Any]] = {
        PROBABILITIES: {"datatype": "FP32", "shape": [count, classes], "data": values}
    }
    flags = [prediction.out_of_distribution for prediction in predictions]
    if None not in flags:
        available[OUT_OF_DISTRIBUTION] = {"datatype": "BOOL", "shape": [count], "data": flags}
    requested = dict.fromkeys(output.name for output in request.outputs) or available
    missing = [output for output in requested if output not in available]
    if missing:
        raise _bad(f"outputs: this classifier has no output {missing[0]}")
    outputs = [{"name": output, **available[output]} for output in requested]
    identity = {} if request.id is None else {"id": request.id}
    return {"model_name": name, **identity, "outputs": outputs}


def _read_request(body: bytes) -> InferRequest:
    try:
        return InferRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _bad(f"{where or 'body'}: {first['msg']}"[:MAX_MESSAGE_LENGTH]) from error


def _encoded_files(tensor: InputTensor) -> list[bytes]:
    if tensor.shape != [len(tensor.data)]:
        raise _bad(f"inputs.0: shape {tensor.shape} does not match {len(tensor.data)} items")
    files = []
    for number, text in enumerate(tensor.data):
        if not isinstance(text, str):
            raise _bad(f"inputs.0.data.{number}: files are base64 text")
        try:
            files.append(base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError) as error:
            raise _bad(f"inputs.0.data.{number}: not valid base64") from error
    return files


def _arrays_as_files(tensor: InputTensor) -> list[bytes]:
    """Arrays as BMP files, so that they are processed exactly as files are."""
    if len(tensor.shape) != 4 or tensor.shape[3] != 3:
        raise _bad(f"inputs.0.shape: UINT8 images are [N, H, W, 3], not {tensor.shape}")
    pixels = np.frombuffer(_flat(tensor), np.uint8).reshape(tensor.shape)
    return [_as_file(image) for image in pixels]


def _flat(tensor: InputTensor) -> bytes:
    """The values of a tensor in row-major order, given nested or flat."""
    level = tensor.data
    if level and isinstance(level[0], list):
        level = [tensor.data]
        for size in tensor.shape:
            if any(not isinstance(item, list) or len(item) != size for item in level):
                raise _bad(f"inputs.0: the nested lists do not have shape {tensor.shape}")
            level = list(chain.from_iterable(level))
    if set(map(type, level)) != {int} or min(level) < 0 or max(level) > WHITE:
        raise _bad("inputs.0.data: UINT8 values are integers from 0 to 255")
    if len(level) != prod(tensor.shape):
        raise _bad(f"inputs.0: shape {tensor.shape} does not match {len(level)} values")
    return bytes(level)


def _as_file(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "BMP")
    return stream.getvalue()


def _bad(message: str) -> RequestRefused:
    return RequestRefused(400, "bad_request", message)
