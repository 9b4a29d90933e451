"""Messages of the Open Inference Protocol, version 2, over HTTP.

https://github.com/kserve/open-inference-protocol. There is one input, `images`: datatype UINT8 with shape [N, H, W, 3],
RGB images as nested or flat numbers, or BYTES with shape [N], image files as base64; both are processed as files are.
The outputs are `probabilities`, FP32 [N, classes], and `out_of_distribution`, BOOL [N], if the classifier has a review
policy. Tensors can be binary instead of JSON, as the binary tensor extension defines; see `binary`.
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
from thaw.serve import binary
from thaw.web.limits import RequestRefused

PROBABILITIES, OUT_OF_DISTRIBUTION = "probabilities", "out_of_distribution"
VERSION = "1"
"""The one version of the model, for clients that ask for one."""
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


class TensorParameters(_Message):
    """Parameters of a tensor that are understood; others are ignored."""

    shared_memory_region: Any = None


class InputParameters(TensorParameters):
    """Parameters of an input."""

    binary_data_size: Annotated[int, Field(ge=0)] | None = None


class InputTensor(_Message):
    """One tensor of a request; `data` is absent if it is binary."""

    name: Literal["images"]
    datatype: Literal["UINT8", "BYTES"]
    shape: Annotated[list[_Size], Field(min_length=1, max_length=4)]
    data: list[Any] | None = None
    parameters: InputParameters = InputParameters()


class OutputParameters(TensorParameters):
    """Parameters of a requested output."""

    binary_data: bool | None = None
    classification: Any = None


class RequestedOutput(_Message):
    """One requested tensor."""

    name: Literal["probabilities", "out_of_distribution"]
    parameters: OutputParameters = OutputParameters()


class RequestParameters(_Message):
    """Parameters of a request that are understood; others are ignored."""

    binary_data_output: bool = False


class InferRequest(_Message):
    """A request for inference; other keys are ignored, as the protocol defines."""

    id: _Short | None = None
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=1)]
    outputs: Annotated[list[RequestedOutput], Field(max_length=8)] = []
    parameters: RequestParameters = RequestParameters()


def read_images(body: bytes, json_length: str | None, most: int) -> tuple[InferRequest, list[bytes]]:
    """The request in a body, and its images as encoded files.

    Args:
        body: The body.
        json_length: The header that gives the length of the JSON object, if binary tensors follow it.
        most: Images that a request may have.

    Raises:
        RequestRefused: The request is invalid; the message names the first problem.
    """
    message, data = binary.split(body, json_length)
    request = _read_request(message)
    tensor = request.inputs[0]
    if tensor.shape[0] > most:
        raise RequestRefused(413, "too_many_images", f"{tensor.shape[0]} images; a request may have {most}")
    _check_place_of_data(tensor, len(data))
    return request, _encoded_files(tensor, data) if tensor.datatype == "BYTES" else _arrays_as_files(tensor, data)


def outputs(classes: int, is_reviewed: bool) -> list[dict[str, Any]]:
    """The outputs in the metadata of a classifier of some classes, with a review policy or without one."""
    probabilities = {"name": PROBABILITIES, "datatype": "FP32", "shape": [-1, classes]}
    return [probabilities, *([{"name": OUT_OF_DISTRIBUTION, "datatype": "BOOL", "shape": [-1]}] if is_reviewed else [])]


def response(
    request: InferRequest, name: str, predictions: list[Prediction], classes: int
) -> tuple[dict[str, Any], list[binary.OutputTensor]]:
    """The response to a request without its outputs, and the outputs."""
    probabilities = np.array([prediction.probabilities for prediction in predictions], np.float32)
    available: dict[str, tuple[str, np.ndarray]] = {
        PROBABILITIES: ("FP32", probabilities.reshape(len(predictions), classes))
    }
    flags = [prediction.out_of_distribution for prediction in predictions]
    if None not in flags:
        available[OUT_OF_DISTRIBUTION] = ("BOOL", np.array(flags, bool))
    requested: dict[str, RequestedOutput] = {output.name: output for output in request.outputs}
    if missing := [output for output in requested if output not in available]:
        raise _bad(f"outputs: this classifier has no output {missing[0]}")
    identity = {} if request.id is None else {"id": request.id}
    outputs = [
        binary.OutputTensor(output, *available[output], _is_binary(request, requested.get(output)))
        for output in requested or available
    ]
    return {"model_name": name, "model_version": VERSION, **identity}, outputs


def _is_binary(request: InferRequest, output: RequestedOutput | None) -> bool:
    """Whether an output is to be binary: as requested for it, else as requested for all."""
    own = output.parameters.binary_data if output else None
    return request.parameters.binary_data_output if own is None else own


def _read_request(message: bytes) -> InferRequest:
    try:
        request = InferRequest.model_validate_json(message)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        hint = f"; what follows the JSON object needs {binary.HEADER}" if "trailing characters" in first["msg"] else ""
        raise _bad(f"{where or 'body'}: {first['msg']}"[:MAX_MESSAGE_LENGTH] + hint) from error
    parameters: list[TensorParameters] = [input_tensor.parameters for input_tensor in request.inputs]
    parameters += [output.parameters for output in request.outputs]
    if any(given.shared_memory_region is not None for given in parameters):
        raise _bad("parameters: shared memory is not supported; send tensors in the body")
    if any(output.parameters.classification is not None for output in request.outputs):
        raise _bad("parameters: classification is not supported; request the output probabilities without it")
    return request


def _check_place_of_data(tensor: InputTensor, following: int) -> None:
    """Raise `RequestRefused` unless the data of a tensor are either in the JSON object or after it."""
    declared = tensor.parameters.binary_data_size
    if (declared is None) == (tensor.data is None):
        raise _bad("inputs.0: give either data, or binary_data_size in its parameters")
    if (declared or 0) != following:
        raise _bad(f"inputs.0: binary_data_size is {declared or 0}, but {following} bytes follow the JSON object")


def _encoded_files(tensor: InputTensor, data: bytes) -> list[bytes]:
    files = binary.byte_strings(data, tensor.shape[0]) if tensor.data is None else _from_base64(tensor.data)
    if tensor.shape != [len(files)]:
        raise _bad(f"inputs.0: shape {tensor.shape} does not match {len(files)} items")
    return files


def _from_base64(texts: list[Any]) -> list[bytes]:
    files = []
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise _bad(f"inputs.0.data.{number}: files are base64 text")
        try:
            files.append(base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError) as error:
            raise _bad(f"inputs.0.data.{number}: not valid base64") from error
    return files


def _arrays_as_files(tensor: InputTensor, data: bytes) -> list[bytes]:
    """Arrays as BMP files, so that they are processed exactly as files are."""
    if len(tensor.shape) != 4 or tensor.shape[3] != 3:
        raise _bad(f"inputs.0.shape: UINT8 images are [N, H, W, 3], not {tensor.shape}")
    values = data if tensor.data is None else _flat(tensor.data, tensor.shape)
    if len(values) != prod(tensor.shape):
        raise _bad(f"inputs.0: shape {tensor.shape} does not match {len(values)} values")
    return [_as_file(image) for image in np.frombuffer(values, np.uint8).reshape(tensor.shape)]


def _flat(data: list[Any], shape: list[int]) -> bytes:
    """The values of a tensor in row-major order, given nested or flat."""
    level = data
    if level and isinstance(level[0], list):
        level = [data]
        for size in shape:
            if any(not isinstance(item, list) or len(item) != size for item in level):
                raise _bad(f"inputs.0: the nested lists do not have shape {shape}")
            level = list(chain.from_iterable(level))
    if set(map(type, level)) != {int} or min(level) < 0 or max(level) > WHITE:
        raise _bad("inputs.0.data: UINT8 values are integers from 0 to 255")
    return bytes(level)


def _as_file(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "BMP")
    return stream.getvalue()


def _bad(message: str) -> RequestRefused:
    return RequestRefused(400, "bad_request", message)
