"""Replies of the RESTful dialect: results to one compact JSON document, keys sorted.

A float is widened to a double and printed with the fewest digits that read back the same, with
`.0` where it is integral; NaN and infinities are `null`. Very large and very small numbers may
have another, equal form than the original's (`1e+16`, `0.00001`).
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from protocol import serving_texts, status
from protocol.errors import RequestError
from protocol.native import Buffer
from protocol.tensor import fail_illegal_text, printable, whole_failure, wire_array
from protocol.values import (
    DTYPES,
    BytesValue,
    Failure,
    MethodSignature,
    RequestSpec,
    Result,
    StringValue,
    Value,
)

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_SORT_KEYS
_FLOAT64 = DTYPES["float64"]
_NARROW_FLOATS = (DTYPES["float16"], DTYPES["float32"])


def encode_reply(
    spec: RequestSpec, method: MethodSignature, results: Sequence[Result]
) -> list[Buffer]:
    """`{"instances":[…]}`, always a list, in the order of the instances.

    An instance that failed is `{"error_msg":…}` there; if all of them failed with the same code
    and text, the document is that one error.
    Raises: TypeError for an array whose dtype the wire does not know.
    """
    assert results, spec
    try:
        return [_encode_results(method, results)]
    except UnicodeEncodeError:
        return [_encode_results(method, fail_illegal_text(method, results))]
    except RequestError as error:
        return encode_failure(spec, error.reason, error.message)


def encode_failure(
    spec: RequestSpec | None,  # noqa: ARG001  another dialect echoes it
    reason: str,
    message: str,
) -> list[Buffer]:
    """`{"error_msg":…}` for a request that failed as a whole; only the text is shown."""
    assert reason in status.REASONS, reason
    return [orjson.dumps(_error(message))]


def _error(message: str) -> dict[str, str]:
    return {"error_msg": printable(message or serving_texts.PREDICT_FAILED)}


def _encode_results(method: MethodSignature, results: Sequence[Result]) -> bytes:
    whole = whole_failure(results)
    if whole is not None:
        return orjson.dumps(_error(whole.message))
    if not method.outputs:
        raise RequestError("failed", serving_texts.reply_failed("reply instance items is empty"))
    instances = [
        _error(result.message)
        if isinstance(result, Failure)
        else {name: _plain(value) for name, value in zip(method.outputs, result, strict=True)}
        for result in results
    ]
    return orjson.dumps({"instances": instances}, option=_OPTIONS)


def _plain(value: Value) -> Any:
    """A value as orjson takes it. Raises: UnicodeEncodeError for text that is not UTF-8."""
    if isinstance(value, StringValue):
        if not value.text.isascii():
            value.text.encode()
        return [value.text] if value.shape else value.text
    if isinstance(value, BytesValue):
        encoded = {"b64": binascii.b2a_base64(value.content, newline=False).decode()}
        return [encoded] if value.shape else encoded
    array = np.asarray(value)
    if array.dtype not in _NATIVE or not array.flags.c_contiguous:
        array = wire_array(array)
    if array.dtype in _NARROW_FLOATS:
        array = array.astype(_FLOAT64)
    return array if array.ndim else array.item()


_NATIVE = frozenset(DTYPES.values())
