"""Names, versions and tensors of models, from what the broker says."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.models import Models
from protocol.errors import RequestError
from protocol.values import RequestSpec
from tests.gateway.oip_fakes import stats

MODELS = Models.of_stats(stats())


@pytest.mark.parametrize(
    ("model", "version", "spec"),
    [
        ("add", "", RequestSpec("add", "add", 0)),
        ("add", "0", RequestSpec("add", "add", 0)),
        ("add", "1", RequestSpec("add", "add", 1)),
        ("add", "9", RequestSpec("add", "add", 9)),  # the broker knows whether it is there
        ("add", "stable", RequestSpec("add/stable", "add", 0)),
        ("add", "canary", RequestSpec("add/canary", "add", 0)),
        ("add.shout", "2", RequestSpec("add", "shout", 2)),
        ("add.other", "", RequestSpec("add", "other", 0)),
        ("other.one", "", RequestSpec("other.one", "plus", 0)),
        ("other.one.plus", "", RequestSpec("other.one", "plus", 0)),
    ],
)
def test_a_model_is_a_servable_or_a_method_of_one(model: str, version: str, spec: Any) -> None:
    assert MODELS.spec(model, version) == spec


@pytest.mark.parametrize(
    ("model", "version", "text"),
    [
        ("nobody", "", "model 'nobody' is not served"),
        ("add.", "", "model 'add.' is not served"),
        (".add", "", "model '.add' is not served"),
        ("", "", "model '' is not served"),
        ("add", "x", "version 'x' of servable add is neither a number nor one of stable, canary"),
        ("add", "-1", "version '-1' of servable add is neither a number nor one of stable, canary"),
        ("add", "²", "version '²' of servable add is neither a number nor one of stable, canary"),
    ],
)
def test_what_is_not_there_is_named(model: str, version: str, text: str) -> None:
    with pytest.raises(RequestError) as raised:
        MODELS.spec(model, version)
    assert (raised.value.reason, raised.value.message) == ("unknown_service", text)


def test_versions_of_metadata_are_those_that_are_there() -> None:
    assert MODELS.version_of("add", "")[0].number == 2
    assert MODELS.version_of("add", "canary")[0].number == 1
    with pytest.raises(RequestError, match="servable add has no version 9"):
        MODELS.version_of("add", "9")
    with pytest.raises(RequestError, match="servable add has no method 'x', only add, shout"):
        MODELS.version_of("add.x", "")


def test_tensors_have_a_batch_dimension_where_the_model_has_one() -> None:
    _, add = MODELS.version_of("add", "")
    assert [tuple(each) for each in add.input_tensors()] == [
        ("x1", "FP32", (-1, 2)),
        ("x2", "FP32", (-1, 2)),
    ]
    _, plus = MODELS.version_of("other.one", "")
    assert [tuple(each) for each in plus.output_tensors()] == [("y", "FP32", (2,))]


def test_what_python_takes_is_announced_without_a_datatype() -> None:
    _, shout = MODELS.version_of("add.shout", "")
    assert [tuple(each) for each in shout.input_tensors()] == [("text", "", (-1,))]


def test_a_worker_of_an_older_release_says_nothing_of_tensors() -> None:
    said = stats()
    for worker in said["workers"]:
        del worker["tensors"]
    _, add = Models.of_stats(said).version_of("add", "")
    assert [tuple(each) for each in add.input_tensors()] == [
        ("x1", "", (-1,)),
        ("x2", "", (-1,)),
    ]


def test_a_version_whose_workers_are_away_keeps_its_methods() -> None:
    said = stats("add/1 has no worker")
    said["workers"] = []
    models = Models.of_stats(said, MODELS)
    assert models.spec("add", "") == RequestSpec("add", "add", 0)
    version, method = models.version_of("add", "2")
    assert (version.not_ready, method.name) == ("add/1 has no worker", "add")


def test_a_version_without_workers_is_known_and_has_no_methods() -> None:
    said = stats("add/1 has no worker")
    said["workers"] = [each for each in said["workers"] if each["service"] == "other.one/7"]
    models = Models.of_stats(said)
    with pytest.raises(RequestError) as raised:
        models.version_of("add", "1")
    assert (raised.value.reason, raised.value.message) == ("no_worker", "add/1 has no worker")
