"""Addresses of RESTful requests."""

from __future__ import annotations

import pytest

from protocol.errors import RequestError
from protocol.restful import parse_target
from protocol.values import RequestSpec


@pytest.mark.parametrize(
    ("target", "spec"),
    [
        (b"/model/add:m", ("add", "m", 0)),
        (b"/model/add/version/1:m", ("add", "m", 1)),
        (b"/version/0/model/add:m", ("add", "m", 0)),
        (b"/version/7/model/add:m", ("add", "m", 7)),
        (b"/model/add/version/4294967294:m", ("add", "m", 4294967294)),
        (b"/model/add/version/ +1x:m", ("add", "m", 1)),
        (b"/model/add/version/-0:m", ("add", "m", 0)),
        (b"/model/add/version/007:m", ("add", "m", 7)),
        (b"/model/add:m?x=1:2", ("add", "m", 0)),
        (b"/model/add:a:b/c", ("add", "a:b/c", 0)),
        (b"/model/a%20b:m", ("a%20b", "m", 0)),
        (b"/model/version/version/2:m", ("version", "m", 2)),
        (b"/model/model:version", ("model", "version", 0)),
        (b"/model/my_model_version2:m", ("my_model_version2", "m", 0)),
        (b"/prefix/model/add/version/1:m", ("add", "m", 1)),
        ("/model/größe:m".encode(), ("größe", "m", 0)),
        (b"/model/add/label/canary:m", ("add/canary", "m", 0)),
        (b"/label/stable/model/add/version/0:m", ("add/stable", "m", 0)),
        (b"/model/label/label/canary:m", ("label/canary", "m", 0)),
    ],
)
def test_target_names_servable_method_and_version(
    target: bytes, spec: tuple[str, str, int]
) -> None:
    assert parse_target(target) == RequestSpec(*spec)


MODEL = "the keyword:[model] must contain."
METHOD = "the keyword:[service method] must contain."
INVALID = "the keyword:[version] value invalid, request version number "
RANGE = "version number range failed, request version number "


@pytest.mark.parametrize(
    ("target", "rule"),
    [
        (b"", MODEL),
        (b"/x/:m", MODEL),
        (b"/model:m", MODEL),
        (b"/model/add/label/:m", "the keyword:[label] has no value."),
        (
            b"/model/add/label/canary/version/1:m",
            "the keywords [version] and [label] exclude each other.",
        ),
        (b"/model/:m", MODEL),
        (b"/model//version/x", MODEL),
        (b"/models/add:m", MODEL),
        (b"/model/add", METHOD),
        (b"/model/add:", METHOD),
        (b"/model/add:?m", METHOD),
        (b"/model/add/version/x", INVALID + "x"),
        (b"/model/add/version/:m", INVALID),
        (b"/model/add/version:m", INVALID),
        (b"/model/add/version/--1:m", INVALID + "--1"),
        (b"/model/add/version/-1:m", RANGE + "-1"),
        (b"/model/add/version/4294967295:m", RANGE + "4294967295"),
        (b"/model/add/version/" + b"9" * 5000 + b":m", RANGE + "9" * 5000),
    ],
)
def test_a_wrong_target_is_answered_with_the_first_rule_that_it_breaks(
    target: bytes, rule: str
) -> None:
    with pytest.raises(RequestError) as caught:
        parse_target(target)
    assert caught.value.reason == "invalid_inputs"
    assert caught.value.message == f"please check url, {rule}"
