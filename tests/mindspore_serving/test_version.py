"""Which MindSpore releases are warned about, and in which words."""

import pytest

import mindspore_serving
from mindspore_serving.version import consistency_warning


def test_the_package_says_which_release_it_stands_for() -> None:
    assert mindspore_serving.__version__ == "2.0.2"


@pytest.mark.parametrize("version", ["2.0.0", "2.0.2", "2.0", "2.0.0rc1"])
def test_equal_first_components_are_consistent(version: str) -> None:
    assert consistency_warning(version) is None


@pytest.mark.parametrize("version", ["2.10.0", "1.9.0", "2", "20.0"])
def test_another_release_is_warned_about(version: str) -> None:
    assert consistency_warning(version) == (
        f"MindSpore version {version} and MindSpore Serving version 2.0.2 are expected to be "
        "consistent. If not, there may be compatibility problems."
    )


@pytest.mark.parametrize("version", [None, ""])
def test_a_version_that_cannot_be_read_is_said(version: str | None) -> None:
    assert consistency_warning(version) == "Get MindSpore version failed"
