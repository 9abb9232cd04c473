"""What users are told about a parameter of the wrong type or value, letter by letter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from protocol.parameter_checks import (
    check_bool,
    check_bytes,
    check_int,
    check_ints,
    check_str,
    check_strs,
)

INT, STR, BOOL, NONE = (f"<class '{name}'>" for name in ("int", "str", "bool", "NoneType"))


@pytest.mark.parametrize(
    ("check", "value", "text"),
    [
        (check_str, 1, f"Parameter 'p' should be str, but actually {INT}"),
        (check_str, None, f"Parameter 'p' should be str, but actually {NONE}"),
        (check_str, "", "Parameter 'p' should not be empty str"),
        (check_bool, 1, f"Parameter 'p' should be bool, but actually {INT}"),
        (check_bytes, "k", f"Parameter 'p' should be bytes, but actually {STR}"),
        (check_bytes, b"", "Parameter 'p' should not be empty bytes"),
    ],
)
def test_a_text_a_bool_or_bytes_are_refused_by_type_and_when_empty(
    check: Callable[..., Any], value: object, text: str
) -> None:
    with pytest.raises(RuntimeError) as raised:
        check("p", value)
    assert str(raised.value) == text


@pytest.mark.parametrize(
    ("value", "limits", "text"),
    [
        ("1", (0,), f"Parameter 'p' should be int, but actually {STR}"),
        (True, (0,), f"Parameter 'p' should be int, but actually {BOOL}"),
        (-1, (0,), "Parameter 'p' should be >= 0"),
        (0, (1,), "Parameter 'p' should be >= 1"),
        (0, (1, 512), "Parameter 'p' should be in range [1,512]"),
        (513, (1, 512), "Parameter 'p' should be in range [1,512]"),
    ],
)
def test_an_int_is_refused_by_type_and_limits_and_a_bool_is_none(
    value: object, limits: tuple[int, ...], text: str
) -> None:
    with pytest.raises(RuntimeError) as raised:
        check_int("p", value, *limits)
    assert str(raised.value) == text


@pytest.mark.parametrize(
    ("check", "value", "text"),
    [
        (check_ints, "0", f"Parameter 'p' should be int or tuple/list of int, but actually {STR}"),
        (check_ints, [0, -1], "The item value '-1' in parameter 'p' should be >= 0"),
        (check_ints, (2, 2), "The item value '2' in parameter 'p' should not be repeated"),
        (
            check_ints,
            [False],
            f"The item value 'False' in parameter 'p' should be int, but actually {BOOL}",
        ),
        (check_strs, 3, f"Parameter 'p' should be str or tuple/list of str, but actually {INT}"),
        (check_strs, ["a", "a"], "The item value 'a' in parameter 'p' should not be repeated"),
        (check_strs, ["a", ""], "The item value '' in parameter 'p' should not be empty str"),
        (
            check_strs,
            [3],
            f"The item value '3' in parameter 'p' should be str, but actually {INT}",
        ),
    ],
)
def test_items_of_a_list_are_refused_by_their_value(
    check: Callable[..., Any], value: object, text: str
) -> None:
    with pytest.raises(RuntimeError) as raised:
        check("p", value)
    assert str(raised.value) == text


def test_one_value_a_list_and_a_tuple_are_taken() -> None:
    assert check_ints("p", 3) == (3,)
    assert check_ints("p", [3, 1]) == check_ints("p", (3, 1)) == (3, 1)
    assert check_strs("p", "a") == ("a",)
    assert check_strs("p", ["a", "b"]) == check_strs("p", ("a", "b")) == ("a", "b")
