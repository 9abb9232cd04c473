"""Checks of what a user writes in `servable_config.py`; every failure is a RuntimeError.

RuntimeError even for wrong types: MindSpore Serving raises it everywhere, and start scripts
catch it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any


def check_bool(name: str, value: Any) -> bool:
    """Return `value` if it is a bool."""
    if not isinstance(value, bool):
        raise RuntimeError(f"Parameter '{name}' should be bool, but actually {type(value)}")
    return value


def check_int(name: str, value: Any, minimum: int) -> int:
    """Return `value` if it is an int (not a bool) of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise RuntimeError(f"Parameter '{name}' should be int, but actually {type(value)}")
    if value < minimum:
        raise RuntimeError(f"Parameter '{name}' should be >= {minimum}")
    return value


def check_ints(name: str, value: Any, minimum: int = 0) -> tuple[int, ...]:
    """Return `value`, one int or a list or tuple of distinct ints, as a tuple."""
    items = (value,) if isinstance(value, int) else value
    if not isinstance(items, list | tuple):
        raise RuntimeError(
            f"Parameter '{name}' should be int or tuple/list of int, but actually {type(value)}"
        )
    for item in items:
        check_int(name, item, minimum)
    _check_distinct(name, items)
    return tuple(items)


def check_str(name: str, value: Any) -> str:
    """Return `value` if it is a text that is not empty."""
    if not isinstance(value, str):
        raise RuntimeError(f"Parameter '{name}' should be str, but actually {type(value)}")
    if not value:
        raise RuntimeError(f"Parameter '{name}' should not be empty str")
    return value


def check_strs(name: str, value: Any) -> tuple[str, ...]:
    """Return `value`, one text or a list or tuple of distinct texts (≥ 1), as a tuple."""
    items = (value,) if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise RuntimeError(
            f"Parameter '{name}' should be str or tuple/list of str, but actually {type(value)}"
        )
    if not items:
        raise RuntimeError(f"Parameter '{name}' should not be empty")
    for item in items:
        check_str(name, item)
    _check_distinct(name, items)
    return tuple(items)


def _check_distinct(name: str, items: Sequence[Hashable]) -> None:
    seen = set()
    for item in items:
        if item in seen:
            raise RuntimeError(f"The item value '{item}' in parameter '{name}' is repeated")
        seen.add(item)
