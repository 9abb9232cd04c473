"""The gRPC dialect of the Open Inference Protocol v2: ModelInferRequest and ModelInferResponse.

One frame each way, protobuf. The gateway only scans a request (`scan_request`); the worker decodes
it. Raw contents never go through protobuf: the scan cuts them out as views, and the reply has them
appended as they lie in memory.

A reply with a status other than 0 is a failure: its body is the failure meta of the native dialect,
for the gateway to put into gRPC's words. Rules of tensors: `oip_tensor`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from protocol import native
from protocol.errors import RequestError
from protocol.native import Buffer
from protocol.oip_messages import InferParameter, ModelInferRequest, ModelInferResponse
from protocol.oip_parameters import Echo, Parameters, RequestParameters, echo_of
from protocol.oip_results import encode_raw, to_outputs
from protocol.oip_tensor import (
    BYTES,
    DTYPE_OF_DATATYPE,
    InputHeader,
    InputPlan,
    as_shape,
    check_count,
    check_header,
    decode_raw,
    plan_inputs,
    to_instances,
)
from protocol.tensor import VIEW_BYTES_MIN
from protocol.values import EchoedInstances, MethodSignature, RequestSpec, Result
from protocol.varint import read_varint, varint

#: Tags of ModelInferRequest: field number * 8 + wire type 2.
_MODEL_NAME, _MODEL_VERSION, ID, _PARAMETERS, _INPUTS, RAW = 0x0A, 0x12, 0x1A, 0x22, 0x2A, 0x3A

# Tags inside of an InferInputTensor.
_SHAPE_PACKED, _SHAPE_PLAIN = 0x1A, 0x18

_RAW_OUTPUT = b"\x32"
_ID_FIELD = b"\x1a"

#: What is kept for the next request that is the same is at most so long.
KEPT_BYTES_MAX = 2048

# Tag inside of a ModelStreamInferResponse.
_INFER_RESPONSE = b"\x12"

#: Which field of InferTensorContents has the elements of which datatype.
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}


class Scan(NamedTuple):
    """What the gateway reads of a request. instance_count: 0 = not known."""

    model: str
    version: str
    id: str
    instance_count: int
    parameters: RequestParameters


# ---------------------------------------------------------------- the gateway's scan


def scan_request(body: Buffer) -> Scan:
    """Who is asked, from the top level of a ModelInferRequest; no tensor is decoded.

    Raises: RequestError (malformed; invalid_inputs, unsupported for its parameters).
    """
    texts: dict[int, bytes] = {}
    parameters: list[bytes] = []
    count = 0
    has_input = False
    for tag, begin, start, end in fields(body):
        if tag in (_MODEL_NAME, _MODEL_VERSION, ID):
            texts[tag] = bytes(body[start:end])
        elif tag == _PARAMETERS:
            parameters.append(bytes(body[begin:end]))
        elif tag == _INPUTS and not has_input:
            has_input = True
            count = _leading_dimension(body[start:end])
    try:
        model, version, request_id = (
            texts.get(tag, b"").decode() for tag in (_MODEL_NAME, _MODEL_VERSION, ID)
        )
    except UnicodeDecodeError:
        raise _malformed("a text is not UTF-8") from None
    chosen = _parse(b"".join(parameters)).parameters if parameters else {}
    return Scan(model, version, request_id, count, RequestParameters.read(_plain(chosen)))


def _leading_dimension(tensor: Buffer) -> int:
    """The first dimension of an input's shape; 0 if there is none that counts instances."""
    for tag, _, start, end in fields(tensor):
        if (tag == _SHAPE_PACKED and end > start) or tag == _SHAPE_PLAIN:
            try:
                length = read_varint(tensor[:end], start)[0]
            except IndexError:
                raise _malformed("a shape ends inside of a number") from None
            except ValueError as error:
                raise _malformed(str(error)) from None
            return length if length < 1 << 31 else 0
    return 0


def fields(body: Buffer) -> list[tuple[int, int, int, int]]:
    """The fields of a message: tag, where it begins, and where its content starts and ends."""
    found = []
    at, end = 0, len(body)
    try:
        while at < end:
            begin, tag = at, body[at]
            at += 1
            if tag >= 0x80:
                tag, at = read_varint(body, begin)
            start = at
            kind = tag & 7
            if kind == 2:
                size = body[at]
                start += 1
                if size >= 0x80:
                    size, start = read_varint(body, at)
                at = start + size
            elif kind == 0:
                at = read_varint(body, at)[1]
            elif kind in (1, 5):
                at += 8 if kind == 1 else 4
            else:
                raise _malformed(f"field {tag >> 3} has wire type {kind}")
            found.append((tag, begin, start, at))
    except IndexError:
        raise _malformed("it ends inside of a field") from None
    except ValueError as error:
        raise _malformed(str(error)) from None
    if at > end:
        raise _malformed("it ends inside of a field")
    return found


def _malformed(rule: str) -> RequestError:
    return RequestError("malformed", f"body is not a ModelInferRequest: {rule}")


# ---------------------------------------------------------------- requests


class _Plan(NamedTuple):
    """All of a request but its id and its raw contents."""

    echo: Echo
    inputs: InputPlan


def decode_request(frames: Sequence[Buffer], method: MethodSignature) -> EchoedInstances:
    """The instances of a request. Arrays are writable and own their memory.

    Raises: RequestError (malformed, invalid_inputs, unsupported).
    """
    body: Buffer = frames[0] if frames else b""
    if len(body) >= VIEW_BYTES_MIN:
        body = memoryview(body)
    rest, request_id, raws = _cut(body)
    contents: Sequence[Any]
    if raws:
        plan = (_kept_plan if len(rest) <= KEPT_BYTES_MAX else _plan)(rest, method, True)
        headers = plan.inputs.headers
        if len(raws) != len(headers):
            raise RequestError(
                "invalid_inputs",
                f"{len(raws)} raw_input_contents are there for {len(headers)} inputs",
            )
        contents = [
            decode_raw(header.name, header.datatype, header.shape, raw)
            for header, raw in zip(headers, raws, strict=True)
        ]
    else:
        plan = _plan(rest, method, False)
        contents = [_decode_typed(tensor) for tensor in _parse(rest).inputs]
    echo = plan.echo
    if request_id:
        try:
            echo = echo._replace(id=request_id.decode())
        except UnicodeDecodeError:
            raise _malformed("the id is not UTF-8") from None
    return EchoedInstances(to_instances(plan.inputs, contents), echo)


def _cut(body: Buffer) -> tuple[bytes, bytes, list[Buffer]]:
    """The message without its id and its raw contents; the id; and the raw contents."""
    kept: list[Buffer] = []
    raws: list[Buffer] = []
    request_id = b""
    kept_from = 0
    for tag, begin, start, end in fields(body):
        if tag == RAW:
            raws.append(body[start:end])
        elif tag == ID:
            request_id = bytes(body[start:end])
        else:
            continue
        kept.append(body[kept_from:begin])
        kept_from = end
    kept.append(body[kept_from:])
    return b"".join(kept), request_id, raws


def _plan(rest: bytes, method: MethodSignature, has_raws: bool) -> _Plan:
    """What a message says of its inputs and of its reply. Raises RequestError."""
    request = _parse(rest)
    parameters = RequestParameters.read(_plain(request.parameters))
    outputs = [(each.name, _plain(each.parameters)) for each in request.outputs]
    echo = echo_of(method, request.model_name, "", parameters, outputs)
    headers = []
    for tensor in request.inputs:
        name, datatype, shape = tensor.name, tensor.datatype, tuple(tensor.shape)
        check_header(name, datatype, shape)
        if has_raws and tensor.contents.ByteSize():
            raise RequestError(
                "invalid_inputs", f"input {name!r} has contents beside raw_input_contents"
            )
        content_type = parameters.content_type_of(name, _plain(tensor.parameters))
        headers.append(InputHeader(name, datatype, shape, content_type))
    inputs = plan_inputs(method, headers)
    return _Plan(echo._replace(is_stacked=inputs.is_stacked), inputs)


#: Clients send the same names and shapes again and again.
_kept_plan = lru_cache(maxsize=256)(_plan)


def _parse(body: bytes) -> Any:
    try:
        return ModelInferRequest.FromString(body)
    except DecodeError as error:
        raise _malformed(str(error)) from None


def _plain(parameters: Any) -> Parameters:
    """A map of InferParameters as Python values."""
    plain: dict[str, bool | int | float | str] = {}
    for name, parameter in parameters.items():
        kind = parameter.WhichOneof("parameter_choice")
        if kind is not None:
            plain[name] = getattr(parameter, kind)
    return plain


def _decode_typed(tensor: Any) -> Any:
    """The content of an input that is in one of the typed fields. Raises RequestError."""
    name, datatype, shape = tensor.name, tensor.datatype, tuple(tensor.shape)
    field = _CONTENTS.get(datatype)
    if field is None:
        raise RequestError(
            "invalid_inputs", f"input {name!r}: {datatype} has raw contents only, typed ones came"
        )
    elements = getattr(tensor.contents, field)
    if datatype == BYTES:
        check_count(name, shape, len(elements))
        return list(elements)
    try:
        array = np.array(list(elements), DTYPE_OF_DATATYPE[datatype])
    except OverflowError as error:
        raise RequestError("invalid_inputs", f"input {name!r}: {error}") from None
    return as_shape(name, array, shape)


# ---------------------------------------------------------------- replies


def encode_reply(
    spec: RequestSpec, method: MethodSignature, results: Sequence[Result]
) -> list[Buffer]:
    """One ModelInferResponse with raw contents.

    Raises: RequestError for the first instance that failed; TypeError for a dtype that the wire
    does not know.
    """
    echo = spec.echo
    assert isinstance(echo, Echo), spec
    outputs = to_outputs(method, results, echo.is_stacked, echo.outputs)
    head = _kept_head if len(echo.model) <= KEPT_BYTES_MAX else _response_head
    parts: list[Buffer] = [
        head(
            echo.model,
            str(method.version or spec.version),
            tuple(echo.reply_parameters.items()),
            tuple((output.name, output.datatype, output.shape) for output in outputs),
        )
    ]
    if echo.id:
        request_id = echo.id.encode()
        parts += (_ID_FIELD + varint(len(request_id)), request_id)
    for output in outputs:
        content = encode_raw(output)
        parts += (_RAW_OUTPUT + varint(memoryview(content).nbytes), content)
    return [b"".join(parts)]


def _response_head(
    model: str,
    version: str,
    parameters: tuple[tuple[str, bool | int | float | str], ...],
    outputs: tuple[tuple[str, str, tuple[int, ...]], ...],
) -> bytes:
    """A response up to its id and its raw contents."""
    response = ModelInferResponse(model_name=model, model_version=version)
    for name, value in parameters:
        response.parameters[name].CopyFrom(_parameter(value))
    for name, datatype, shape in outputs:
        response.outputs.add(name=name, datatype=datatype, shape=shape)
    head: bytes = response.SerializeToString()
    return head


_kept_head = lru_cache(maxsize=256)(_response_head)


def _parameter(value: bool | int | float | str) -> Any:
    if isinstance(value, bool):
        return InferParameter(bool_param=value)
    if isinstance(value, int):
        return InferParameter(int64_param=value)
    if isinstance(value, float):
        return InferParameter(double_param=value)
    return InferParameter(string_param=value)


def stream_response(response: Buffer) -> bytes:
    """A ModelStreamInferResponse around a ModelInferResponse, which is its one field."""
    return _INFER_RESPONSE + varint(len(response)) + response


def encode_failure(spec: RequestSpec | None, reason: str, message: str) -> list[Buffer]:
    """The failure meta of the native dialect."""
    return native.encode_failure(spec, reason, message)
