"""Fixtures of the gateway's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gateway.fakes import KeyMaterial, make_key_material


@pytest.fixture(scope="session")
def key_material(tmp_path_factory: pytest.TempPathFactory) -> KeyMaterial:
    directory: Path = tmp_path_factory.mktemp("keys")
    return make_key_material(directory)
