"""Shorthands for tests of RESTful requests."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from protocol import restful
from protocol.errors import RequestError
from protocol.values import MethodSignature

METHOD = MethodSignature("add", "m", ("x",), ("y",))


def decode(value: Any) -> Any:
    """The one value of a request with one instance that has `value` as input x."""
    [(decoded,)] = decode_document({"instances": {"x": value}})
    return decoded


def decode_document(document: Any) -> list[Any]:
    return restful.decode_request([json.dumps(document).encode()], METHOD)


def refusal(document: Any) -> str:
    with pytest.raises(RequestError) as caught:
        decode_document(document)
    assert caught.value.reason == "invalid_inputs"
    return caught.value.message


def parse_refusal(value: Any) -> str:
    """The text behind the prefix; the gateway's check must say the same as the worker."""
    document = {"instances": [{"x": value}]}
    with pytest.raises(RequestError) as caught:
        restful.check_request(json.dumps(document).encode())
    assert caught.value.message == refusal(document)
    return refusal(document).removeprefix("Parser request failed, ")


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()
