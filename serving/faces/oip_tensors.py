"""Open Inference requests and answers as bytes: JSON, and the binary tensor data extension. No I/O, no model."""

from __future__ import annotations

import json
import math
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, ValidationError

from registry.errors import InvalidInput

_FIELD = re.compile(r"[A-Za-z0-9_-]{1,64}")
_INT64 = range(-(2**63), 2**63)
_INT32 = range(-(2**31), 2**31)
_MAX_RANK = 8
_WINDOW_BITS = {"gzip": 31, "deflate": 15}  # "deflate" in HTTP is the zlib format

Parameter: TypeAlias = str | int | float | bool
# What an output asks for that changes how it must be delivered, so that leaving it aside would not do.
_NOT_DELIVERED = ("shared_memory_region", "classification")


def _parameter(value: Any) -> Any:
    if isinstance(value, str | bool):
        return value
    if isinstance(value, int) and value in _INT64:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise ValueError("a parameter is a string, a boolean or a finite number")


_Parameters = dict[str, Annotated[Any, AfterValidator(_parameter)]]
_Size = Annotated[int, Field(ge=0, lt=2**64)]


class _Wire(BaseModel):
    # Fields that the protocol does not name are left aside: clients send some ("model_name", say).
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    parameters: _Parameters = {}


class _WireInput(_Wire):
    name: str
    datatype: str
    shape: Annotated[tuple[_Size, ...], Field(max_length=_MAX_RANK), FailFast()]
    data: Any = None


class _WireOutput(_Wire):
    name: str


class _WireRequest(_Wire):
    id: str | None = None
    inputs: Annotated[tuple[_WireInput, ...], FailFast()]
    outputs: Annotated[tuple[_WireOutput, ...], FailFast()] = ()


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named tensor.

    Attributes:
        values: its elements, the last dimension first to vary. Those of BYTES are text.
    """

    name: str
    datatype: Literal["BYTES", "INT32", "FP32", "BOOL"]
    shape: tuple[int, ...]
    values: Sequence[Any]


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output that is asked for, and whether as binary data."""

    name: str
    binary: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceRequest:
    """An inference request, read.

    Attributes:
        outputs: in the order in which they are to be answered; without any, all are asked for.
        binary_output: whether as binary data, where `outputs` does not say.
    """

    id: str | None
    parameters: Mapping[str, Parameter]
    inputs: tuple[Tensor, ...]
    outputs: tuple[RequestedOutput, ...]
    binary_output: bool


def decompress(body: bytes, encoding: Literal["gzip", "deflate"], *, max_bytes: int) -> bytes | None:
    """A compressed body's content, or None as soon as it is over `max_bytes`.

    Raises:
        InvalidInput: the body is not compressed like that, is cut off, or something follows it.
    """
    stream = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        content = stream.decompress(body, max_bytes + 1)
    except zlib.error:
        raise InvalidInput(f"the body is not {encoding} data") from None
    if len(content) > max_bytes:
        return None
    if not stream.eof or stream.unused_data:
        raise InvalidInput(f"the body is not one whole piece of {encoding} data")
    return content


def decode_request(body: bytes, *, header_length: str | None = None) -> InferenceRequest:
    """Read an inference request.

    Args:
        body: JSON, and behind it the binary data of those inputs that have a `binary_data_size`, in their order.
        header_length: the length of the JSON, as `Inference-Header-Content-Length` gives it; None says that all is
            JSON.

    Raises:
        InvalidInput: anything is not as the protocol has it. The message says where, and never what is there.
    """
    header, binary = _split(body, header_length)
    try:
        wire = _WireRequest.model_validate_json(header)
    except ValidationError as error:
        raise InvalidInput(_where_and_why(error)) from None
    inputs = []
    for index, given in enumerate(wire.inputs):
        tensor, binary = _tensor(given, binary, where=f"inputs[{index}]")
        inputs.append(tensor)
    if binary:
        raise InvalidInput("the body is longer than its inputs")
    if len({tensor.name for tensor in inputs}) < len(inputs):
        raise InvalidInput("an input is given twice")
    binary_output = _flag(wire.parameters, "binary_data_output", default=False)
    outputs = tuple(_requested(output, default=binary_output) for output in wire.outputs)
    if len({output.name for output in outputs}) < len(outputs):
        raise InvalidInput("an output is asked for twice")
    return InferenceRequest(
        id=wire.id, parameters=wire.parameters, inputs=tuple(inputs), outputs=outputs, binary_output=binary_output
    )


def encode_response(head: Mapping[str, Any], outputs: Sequence[tuple[Tensor, bool]]) -> tuple[bytes, int | None]:
    """Write an inference response.

    Args:
        head: its fields beside `outputs`.
        outputs: tensors, each with whether it is to be binary data.

    Returns:
        The body, and the length of the JSON in it; None where there is nothing but JSON.
    """
    described: list[dict[str, Any]] = []
    binary: list[bytes] = []
    for tensor, is_binary in outputs:
        output: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if is_binary:
            data = _to_bytes(tensor)
            binary.append(data)
            output["parameters"] = {"binary_data_size": len(data)}
        else:
            output["data"] = list(tensor.values)
        described.append(output)
    said = json.dumps({**head, "outputs": described}, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    header = said.encode()
    return b"".join([header, *binary]), len(header) if binary else None


def _split(body: bytes, header_length: str | None) -> tuple[bytes, bytes]:
    if header_length is None:
        return body, b""
    # int() also takes signs, spaces, underscores and other scripts' digits.
    if not (header_length.isascii() and header_length.isdecimal() and len(header_length) <= 10):
        raise InvalidInput("Inference-Header-Content-Length is not a number of bytes")
    length = int(header_length)
    if length > len(body):
        raise InvalidInput("Inference-Header-Content-Length is beyond the body")
    return body[:length], body[length:]


def _tensor(given: _WireInput, binary: bytes, *, where: str) -> tuple[Tensor, bytes]:
    """An input, and the binary data behind its own."""
    size = given.parameters.get("binary_data_size")
    if (size is None) == (given.data is None):
        raise InvalidInput(f"{where} needs either data or binary_data_size")
    values: list[Any]
    if size is None:
        values = _flat(given.data, given.shape, where=where)
    elif not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(binary):
        raise InvalidInput(f"{where}: binary_data_size is not within the body")
    else:
        mine, binary = binary[:size], binary[size:]
    count = math.prod(given.shape)
    match given.datatype:
        case "BYTES":
            values = _texts(values, where=where) if size is None else _texts_of(mine, where=where)
        case "INT32":
            values = _integers(values, where=where) if size is None else _integers_of(mine, where=where)
        case _:
            raise InvalidInput(f"{where}: no input has this datatype", remedy="Inputs are BYTES or INT32.")
    if len(values) != count:
        raise InvalidInput(f"{where} has {len(values)} elements, and its shape says {count}")
    return Tensor(given.name, given.datatype, given.shape, values), binary


def _flat(data: Any, shape: tuple[int, ...], *, where: str) -> list[Any]:
    """The elements of JSON data, which may be flat, or nested as the shape is."""
    if not isinstance(data, list):
        raise InvalidInput(f"{where}: data is not an array")
    parts: list[Any] = data
    if not any(isinstance(part, list) for part in parts):
        return parts
    nested: list[Any] = [parts]
    for size in shape:
        if not all(isinstance(part, list) and len(part) == size for part in nested):
            raise InvalidInput(f"{where}: data is not nested as its shape says")
        nested = [element for part in nested for element in part]
    return nested


def _texts(values: list[Any], *, where: str) -> list[str]:
    if not all(isinstance(value, str) for value in values):
        raise InvalidInput(f"{where}: an element of BYTES data is not a string")
    return values


def _texts_of(data: bytes, *, where: str) -> list[str]:
    values = []
    offset = 0
    while offset < len(data):
        start = offset + 4
        offset = start + int.from_bytes(data[offset:start], "little")
        if offset > len(data):
            raise InvalidInput(f"{where}: an element is cut off")
        try:
            values.append(data[start:offset].decode())
        except UnicodeDecodeError:
            raise InvalidInput(f"{where}: element {len(values)} is not UTF-8") from None
    return values


def _integers(values: list[Any], *, where: str) -> list[int]:
    if not all(type(value) is int and value in _INT32 for value in values):
        raise InvalidInput(f"{where}: an element of INT32 data is not a 32-bit integer")
    return values


def _integers_of(data: bytes, *, where: str) -> list[int]:
    if len(data) % 4:
        raise InvalidInput(f"{where}: its binary data are not whole 32-bit integers")
    return list(struct.unpack(f"<{len(data) // 4}i", data))


def _requested(output: _WireOutput, *, default: bool) -> RequestedOutput:
    for name in _NOT_DELIVERED:
        if name in output.parameters:
            raise InvalidInput(f"an output asks for {name}, which is not served")
    return RequestedOutput(output.name, _flag(output.parameters, "binary_data", default=default))


def _flag(parameters: Mapping[str, Parameter], name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidInput(f"the parameter {name} is not a boolean")
    return value


def _to_bytes(tensor: Tensor) -> bytes:
    match tensor.datatype:
        case "BYTES":
            encoded = [value.encode() for value in tensor.values]
            return b"".join(len(value).to_bytes(4, "little") + value for value in encoded)
        case "BOOL":
            return bytes(tensor.values)
        case "FP32" | "INT32":
            letter = "f" if tensor.datatype == "FP32" else "i"
            return struct.pack(f"<{len(tensor.values)}{letter}", *tensor.values)


def _where_and_why(error: ValidationError) -> str:
    """The first problem: where, and why, never what. Names that are none may be a customer's words, too."""
    found = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) if _FIELD.fullmatch(str(part)) else "?" for part in found["loc"])
    return f"{place or 'body'}: {found['msg'].removeprefix('Value error, ')}"
