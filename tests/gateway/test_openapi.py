"""The OpenAPI document of the REST door, against the routes and codes that there are.

tests/clients has schemathesis send what the document allows, and what it does not.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from gateway.http_messages import HttpRequest
from gateway.oip_rest_handler import OipRestHandler
from gateway.oip_rest_target import ACTIONS, VERBS, parse_oip_target
from gateway.openapi import openapi_document
from gateway.rest_router import METRICS_TARGET, OPENAPI_TARGET, RestRouter
from gateway.restful_handler import RestfulHandler
from protocol import limits, restful
from protocol.status import REASONS
from protocol.values import RequestSpec
from tests.gateway.oip_fakes import WorkerBus, server

DOCUMENT: dict[str, Any] = orjson.loads(openapi_document("1.2.3"))
PATHS: dict[str, dict[str, Any]] = DOCUMENT["paths"]
EXAMPLES = {
    name: each.get("example") for name, each in DOCUMENT["components"]["parameters"].items()
}
EXAMPLES["label"] = "canary"


def filled(path: str) -> bytes:
    """A path with an example in the place of each parameter."""
    return re.sub(r"\{(\w+)\}", lambda found: str(EXAMPLES[found[1]]), path).encode()


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, verbs in PATHS.items():
        for verb, operation in verbs.items():
            yield path, verb.upper(), operation


def references(value: Any) -> Iterator[str]:
    """Everything that a part of the document refers to."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from references(each)


def resolved(reference: str) -> Any:
    found = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def test_every_route_of_the_open_inference_protocol_is_described_with_its_verb() -> None:
    described = set()
    for path, verb, _ in operations():
        if path.startswith("/v2"):
            target = parse_oip_target(filled(path))
            assert target is not None, path
            assert verb in VERBS.get(target.action, ("GET",)), path
            described.add((verb, target.action, bool(target.model), bool(target.version)))
    expected = set()
    for path in PATHS:  # what exists for a model exists for its versions
        target = parse_oip_target(filled(path))
        if path.startswith("/v2/models/{model}"):
            assert target is not None
            for verb in VERBS.get(target.action, ("GET",)):
                expected |= {
                    (verb, target.action, True, has_version) for has_version in (False, True)
                }
    assert {(verb, action) for verb, action, _, _ in described} == {
        (verb, action) for action in ACTIONS for verb in VERBS.get(action, ("GET",))
    }
    assert expected <= described


def test_the_paths_of_mindspore_serving_are_read_as_they_say() -> None:
    specs = [restful.parse_target(filled(path)) for path in PATHS if path.startswith("/model/")]
    assert specs == [
        RequestSpec("add", "add_common", 0),
        RequestSpec("add", "add_common", 1),
        RequestSpec("add/canary", "add_common", 0),
    ]


def test_the_other_routes_are_described() -> None:
    others = {path for path in PATHS if not path.startswith(("/v2", "/model/"))}
    assert others == {METRICS_TARGET.decode(), OPENAPI_TARGET.decode()}


def test_names_are_unique_and_every_reference_leads_somewhere() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(names) == len(set(names))
    used = set(references(DOCUMENT))
    for reference in used:
        assert isinstance(resolved(reference), dict), reference
    components = {
        f"#/components/{kind}/{name}"
        for kind, named in DOCUMENT["components"].items()
        for name in named
    }
    assert components == used, "a component that nothing refers to"


def test_parameters_of_paths_are_declared() -> None:
    for path, _, operation in operations():
        declared = [resolved(each["$ref"]) for each in operation.get("parameters", ())]
        in_path = {each["name"] for each in declared if each["in"] == "path"}
        assert in_path == set(re.findall(r"\{(\w+)\}", path)), path


@pytest.mark.parametrize(
    "path", ["/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"]
)
def test_an_inference_may_fail_with_every_code_of_a_reason(path: str) -> None:
    gone, not_asked = REASONS["cancelled"].http, REASONS["not_allowed"].http
    codes = {
        str(reason.http) for reason in REASONS.values() if reason.http not in (gone, not_asked)
    }
    assert set(PATHS[path]["post"]["responses"]) == codes | {"200"}


def test_the_door_gives_the_document() -> None:
    async def ask() -> None:
        bus = WorkerBus()
        router = RestRouter(
            RestfulHandler(bus, limits.MIB),
            OipRestHandler(bus, server(bus), limits.MIB),
            openapi_document("1.2.3"),
        )
        answer = await router.handle(HttpRequest("GET", OPENAPI_TARGET))
        assert (answer.status, answer.content_type) == (200, b"application/json")
        assert orjson.loads(answer.body)["info"]["version"] == "1.2.3"
        for target in (METRICS_TARGET, OPENAPI_TARGET):
            answer = await router.handle(HttpRequest("POST", target, (), b"{}"))
            assert (answer.status, answer.headers) == (405, ((b"allow", b"GET"),))
            assert answer.body == b'{"error":"verb POST is not GET"}'

    asyncio.run(ask())
