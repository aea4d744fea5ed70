"""The codec alone, with the protocol's own client library as the other side."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tritonclient.http import (  # type: ignore[import-untyped]
    InferenceServerClient,
    InferInput,
    InferRequestedOutput,
    InferResult,
)

from registry.errors import InvalidInput
from serving.faces.oip_tensors import (
    RequestedOutput,
    Tensor,
    decode_request,
    decompress,
    encode_response,
)

TEXTS = st.lists(st.text(st.characters(codec="utf-8"), max_size=20), min_size=1, max_size=5)
INT32 = st.integers(-(2**31), 2**31 - 1)


def text_input(**changes: Any) -> dict[str, Any]:
    return {"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": ["parcel"]} | changes


def request(*inputs: Any, **fields: Any) -> bytes:
    return json.dumps({"inputs": inputs or [text_input()], **fields}).encode()


def binary_request(*inputs: tuple[dict[str, Any], bytes], **fields: Any) -> tuple[bytes, str]:
    described = []
    for fields_of_it, data in inputs:
        made = text_input(parameters={"binary_data_size": len(data)}) | fields_of_it
        del made["data"]
        described.append(made)
    header = request(*described, **fields)
    return header + b"".join(data for _, data in inputs), str(len(header))


def element(text: bytes) -> bytes:
    return struct.pack("<I", len(text)) + text


def refused(body: bytes, header_length: str | None = None) -> str:
    with pytest.raises(InvalidInput) as caught:
        decode_request(body, header_length=header_length)
    return str(caught.value)


@settings(deadline=None)
@given(texts=TEXTS, limit=INT32, binary=st.booleans(), column=st.booleans(), outputs=st.booleans())
def test_what_the_client_library_sends_is_read(
    texts: list[str], limit: int, binary: bool, column: bool, outputs: bool
) -> None:
    shape = [len(texts), 1] if column else [len(texts)]
    text = InferInput("TEXT", shape, "BYTES")
    text.set_data_from_numpy(np.array(texts, dtype=np.object_).reshape(shape), binary_data=binary)
    number = InferInput("LIMIT", [1], "INT32")
    number.set_data_from_numpy(np.array([limit], np.int32), binary_data=binary)
    wanted = [InferRequestedOutput("SCORE"), InferRequestedOutput("TITLE", binary_data=False)] if outputs else None
    body, length = InferenceServerClient.generate_request_body(
        [text, number], outputs=wanted, request_id="r", timeout=5, parameters={"mine": "ü"}
    )
    read = decode_request(body, header_length=None if length is None else str(length))
    assert read.id == "r"
    assert read.inputs == (Tensor("TEXT", "BYTES", tuple(shape), texts), Tensor("LIMIT", "INT32", (1,), [limit]))
    assert (read.parameters["timeout"], read.parameters["mine"]) == (5, "ü")
    if outputs:
        assert read.outputs == (RequestedOutput("SCORE", binary=True), RequestedOutput("TITLE", binary=False))
    else:
        assert (read.outputs, read.binary_output) == ((), True)


@settings(deadline=None)
@given(
    texts=TEXTS,
    scores=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=5),
    flags=st.lists(st.booleans(), min_size=1, max_size=5),
    binary=st.tuples(*[st.booleans()] * 4),
)
def test_the_client_library_reads_what_is_answered(
    texts: list[str], scores: list[float], flags: list[bool], binary: tuple[bool, ...]
) -> None:
    tensors = [
        Tensor("A", "BYTES", (len(texts), 1), texts),
        Tensor("B", "FP32", (len(scores),), scores),
        Tensor("C", "BOOL", (len(flags),), flags),
        Tensor("D", "INT32", (2,), [-1, 7]),
    ]
    body, length = encode_response({"model_name": "acme"}, list(zip(tensors, binary, strict=True)))
    assert (length is None) == (not any(binary))
    read = InferResult.from_response_body(body, header_length=length)
    assert read.get_response()["model_name"] == "acme"
    for tensor, is_binary in zip(tensors, binary, strict=True):
        found = read.as_numpy(tensor.name)
        assert found.shape == tensor.shape
        assert ("data" in read.get_output(tensor.name)) == (not is_binary)
        expected = [value.encode() for value in texts] if tensor.name == "A" and is_binary else tensor.values
        assert found.ravel().tolist() == list(expected)


def test_json_data_may_be_nested_as_its_shape_is() -> None:
    nested = text_input(shape=[2, 1], data=[["a"], ["b"]])
    assert decode_request(request(nested)).inputs[0].values == ["a", "b"]


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [2]},
        {"shape": [0]},
        {"shape": [-1], "data": []},
        {"shape": [1.0]},
        {"shape": [True]},
        {"shape": ["1"]},
        {"shape": "1"},
        {"shape": None},
        {"shape": [-1, -1]},
        {"shape": [2**64]},
        {"shape": [10**4000] * 2},
        {"shape": [2**63, 2**63, 2**63]},
        {"shape": [1] * 9},
        {"shape": [2, 1], "data": [["a"], "b"]},
        {"shape": [2, 1], "data": [["a", "b"]]},
        {"shape": [1, 2], "data": [["a"], ["b"]]},
        {"shape": [], "data": [["a"]]},
        {"shape": [1], "data": [["a"]] * 2},
        {"shape": [1], "data": [[["a"]]]},
        {"data": "parcel"},
        {"data": {"0": "parcel"}},
        {"data": None},
        {"data": [None]},
        {"data": [1]},
        {"data": [True]},
        {"data": [{}]},
        {"name": 1},
        {"name": None},
        {"datatype": "FP32"},
        {"datatype": "bytes"},
        {"datatype": ""},
        {"datatype": None},
        {"datatype": "INT32"},
        {"datatype": "INT32", "data": [True]},
        {"datatype": "INT32", "data": [1.0]},
        {"datatype": "INT32", "data": [2**31]},
        {"datatype": "INT32", "data": [-(2**31) - 1]},
        {"datatype": "INT32", "data": [float("nan")]},
        {"parameters": []},
        {"parameters": {"binary_data_size": 0}},
        {"parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 8}, "data": None},
    ],
)
def test_an_input_that_is_not_a_tensor(changes: dict[str, Any]) -> None:
    assert "parcel" not in refused(request(text_input(**changes)))


@pytest.mark.parametrize(
    "fields",
    [
        {"inputs": None},
        {"inputs": {}},
        {"inputs": [1]},
        {"inputs": [text_input(), text_input()]},
        {"id": 1},
        {"parameters": None},
        {"parameters": {"a": None}},
        {"parameters": {"a": {"b": 1}}},
        {"parameters": {"a": [1]}},
        {"parameters": {"a": float("nan")}},
        {"parameters": {"a": float("inf")}},
        {"parameters": {"a": 2**63}},
        {"parameters": {"binary_data_output": 1}},
        {"outputs": 1},
        {"outputs": [{}]},
        {"outputs": [{"name": "SCORE"}, {"name": "SCORE"}]},
        {"outputs": [{"name": "SCORE", "parameters": {"binary_data": 1}}]},
        {"outputs": [{"name": "SCORE", "parameters": {"classification": 2}}]},
        {"outputs": [{"name": "SCORE", "parameters": {"shared_memory_region": "r"}}]},
    ],
)
def test_a_request_that_is_none(fields: dict[str, Any]) -> None:
    refused(request(**fields))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"inputs"',
        b"\xff\xfe",
        request() + b"}",
        request().replace(b"parcel", b"parc\xffel"),
        request().replace(b"parcel", rb"\ud800"),
        request().replace(b'"parcel"', b"NaN"),
        request().replace(b"[1]", b"[" + b"1" * 60_000 + b"]"),
        request().replace(b'["parcel"]', b"[" * 60_000),
        request().replace(b'["parcel"]', b"[" * 30_000 + b"]" * 30_000),
        request().replace(b'["parcel"]', b"[" * 150 + b'"parcel"' + b"]" * 150),
        b'{"parameters":' + b'{"a":' * 10_000,
    ],
)
def test_json_that_is_none_or_a_bomb(body: bytes) -> None:
    assert "parc" not in refused(body)


def test_an_error_says_where_and_not_what() -> None:
    assert refused(request(parameters={"my parcel is late": None})) == (
        "parameters.?: a parameter is a string, a boolean or a finite number"
    )
    assert refused(request(text_input(), text_input(name="x", data=["my parcel"], datatype="my"))).startswith(
        "inputs[1]: no input has this datatype"
    )


def test_binary_data_follow_each_other() -> None:
    body, length = binary_request(
        ({"shape": [2]}, element(b"a") + element("ü".encode())),
        ({"name": "LIMIT", "datatype": "INT32"}, struct.pack("<i", -2)),
    )
    assert [tensor.values for tensor in decode_request(body, header_length=length).inputs] == [["a", "ü"], [-2]]


@pytest.mark.parametrize(
    ("changes", "data"),
    [
        ({}, b""),
        ({}, b"\x01"),
        ({}, b"\x01\x00\x00\x00"),
        ({}, b"\xff\xff\xff\xff" + b"a"),
        ({}, element(b"a") + b"\x00"),
        ({}, element(b"a") + element(b"b")),
        ({}, element(b"caf\xe9")),
        ({}, element(b"\xed\xa0\x80")),
        ({"shape": [2]}, element(b"a")),
        ({"shape": [2**63]}, element(b"a")),
        ({"datatype": "INT32"}, b"\x01\x00\x00"),
        ({"datatype": "INT32"}, b"\x01\x00\x00\x00" * 2),
        ({"datatype": "INT32"}, b""),
        ({"datatype": "FP32"}, struct.pack("<f", float("nan"))),
        ({"parameters": {"binary_data_size": -1}}, element(b"a")),
        ({"parameters": {"binary_data_size": 4}}, element(b"a")),
        ({"parameters": {"binary_data_size": 6}}, element(b"a")),
        ({"parameters": {"binary_data_size": 2**62}}, element(b"a")),
        ({"parameters": {"binary_data_size": 5.0}}, element(b"a")),
        ({"parameters": {"binary_data_size": True}}, b"\x00"),
        ({"parameters": {"binary_data_size": "5"}}, element(b"a")),
        ({"shape": [0], "parameters": {"binary_data_size": False}}, b""),
        ({"parameters": {}}, element(b"a")),
    ],
)
def test_binary_data_that_do_not_fit(changes: dict[str, Any], data: bytes) -> None:
    body, length = binary_request((changes, data))
    refused(body, length)


@pytest.mark.parametrize("length", ["", "-1", "+1", "1.0", "1_0", " 1", "²", "99999999999", "9" * 5000, "0", "5"])
def test_a_length_of_the_header_that_is_none(length: str) -> None:
    refused(request(), length)


def test_an_output_that_does_not_say_comes_as_all_do() -> None:
    wanted = [{"name": "SCORE"}, {"name": "TITLE", "parameters": {"binary_data": False}}]
    read = decode_request(request(outputs=wanted, parameters={"binary_data_output": True}))
    assert read.outputs == (RequestedOutput("SCORE", binary=True), RequestedOutput("TITLE", binary=False))


def test_data_in_both_places() -> None:
    body, length = binary_request(({}, element(b"a")))
    both = body.replace(b'"shape"', b'"data":["a"],"shape"')
    assert refused(both, str(int(length) + len(both) - len(body))) == "inputs[0] needs either data or binary_data_size"


def test_a_size_that_counts_from_the_end() -> None:
    number = ({"name": "LIMIT", "datatype": "INT32"}, bytes(4))
    body, length = binary_request(({"parameters": {"binary_data_size": -4}}, element(b"a")), number)
    assert "inputs[0]: binary_data_size" in refused(body, length)


def test_a_length_of_the_header_in_other_digits() -> None:
    body = request()
    refused(body, str(len(body)).translate({ord("0") + digit: ord("０") + digit for digit in range(10)}))  # noqa: RUF001


def test_a_header_may_be_all_there_is() -> None:
    body = request()
    assert decode_request(body, header_length=str(len(body))) == decode_request(body)
    assert refused(body + b"x", str(len(body))) == "the body is longer than its inputs"
    assert refused(body, str(len(body) + 1)) == "Inference-Header-Content-Length is beyond the body"


def test_binary_data_without_a_length_of_the_header() -> None:
    body, length = binary_request(({}, element(b"a")))
    decode_request(body, header_length=length)
    refused(body)
    refused(body[: int(length)])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def sometimes(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(usual, usual, usual, JSON)


PARAMETERS = st.dictionaries(
    st.sampled_from(["binary_data_size", "binary_data", "binary_data_output", "timeout", "a"]),
    sometimes(st.integers(-2, 20)),
    max_size=2,
)
INPUT = st.fixed_dictionaries(
    {
        "name": sometimes(st.sampled_from(["TEXT", "LIMIT"])),
        "datatype": sometimes(st.sampled_from(["BYTES", "INT32"])),
        "shape": sometimes(st.lists(st.integers(0, 3), max_size=3)),
    },
    optional={
        "data": sometimes(st.lists(st.text(max_size=3) | st.integers(-1, 4), max_size=3)),
        "parameters": sometimes(PARAMETERS),
    },
)
REQUEST = st.fixed_dictionaries(
    {"inputs": sometimes(st.lists(INPUT, max_size=3))},
    optional={
        "id": sometimes(st.text(max_size=3)),
        "parameters": sometimes(PARAMETERS),
        "outputs": sometimes(st.lists(JSON, max_size=3)),
    },
)


@settings(deadline=None)
@given(
    fields=sometimes(REQUEST),
    tail=st.binary(max_size=20),
    length=st.none() | st.integers(-2, 4),
    cut=st.integers(0, 3),
)
@example(fields={"inputs": [text_input(parameters={"binary_data_size": 5})]}, tail=element(b"a"), length=0, cut=0)
def test_whatever_comes_is_read_or_refused(fields: Any, tail: bytes, length: int | None, cut: int) -> None:
    header = json.dumps(fields).encode()
    body = (header + tail)[: len(header) + len(tail) - cut]
    try:
        read = decode_request(body, header_length=None if length is None else str(len(header) + length))
    except InvalidInput:
        return
    for tensor in read.inputs:
        assert len(tensor.values) == np.prod(tensor.shape, dtype=object)


@settings(deadline=None)
@given(st.binary(max_size=40), st.none() | st.text(max_size=4))
def test_whatever_bytes_come(body: bytes, length: str | None) -> None:
    with pytest.raises(InvalidInput):
        decode_request(body, header_length=length)


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed(encoding: Literal["gzip", "deflate"], compress: Any) -> None:
    assert decompress(compress(b"x" * 1000), encoding, max_bytes=1000) == b"x" * 1000
    assert decompress(compress(b"x" * 1001), encoding, max_bytes=1000) is None
    assert decompress(compress(b"x" * 10_000_000), encoding, max_bytes=1000) is None
    assert decompress(compress(b""), encoding, max_bytes=1000) == b""
    whole = compress(b"parcel" * 10)
    for broken in (b"", whole[:-1], whole + b"x", whole * 2, b"parcel", whole[5:]):
        with pytest.raises(InvalidInput):
            decompress(broken, encoding, max_bytes=1000)


@settings(deadline=None)
@given(st.binary(max_size=40), st.sampled_from(["gzip", "deflate"]))
def test_whatever_compressed_bytes_come(body: bytes, encoding: Literal["gzip", "deflate"]) -> None:
    try:
        decompress(body, encoding, max_bytes=100)
    except InvalidInput:
        return
