"""Checks of what users write in start scripts and in `servable_config.py`.

Every failure is a RuntimeError, even for wrong types, and with these words: MindSpore Serving
raises it everywhere, and start scripts and their tests look for the texts.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def check_str(name: str, value: object) -> str:
    """Return `value` if it is a text that is not empty."""
    return _check_str(f"Parameter '{name}'", value)


def check_strs(name: str, value: object) -> tuple[str, ...]:
    """Return one text, or a list or tuple of at least one distinct text, as a tuple."""
    items = (value,) if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise RuntimeError(
            f"Parameter '{name}' should be str or tuple/list of str, but actually {type(value)}"
        )
    if not items:
        raise RuntimeError(f"Parameter '{name}' should not be empty")
    checked = tuple(_check_str(_item(name, item), item) for item in items)
    _check_distinct(name, checked)
    return checked


def check_bytes(name: str, value: object) -> bytes:
    """Return `value` if it is bytes that are not empty."""
    if not isinstance(value, bytes):
        raise RuntimeError(f"Parameter '{name}' should be bytes, but actually {type(value)}")
    if not value:
        raise RuntimeError(f"Parameter '{name}' should not be empty bytes")
    return value


def check_bool(name: str, value: object) -> bool:
    """Return `value` if it is a bool."""
    if not isinstance(value, bool):
        raise RuntimeError(f"Parameter '{name}' should be bool, but actually {type(value)}")
    return value


def check_int(name: str, value: object, minimum: int, maximum: int | None = None) -> int:
    """Return `value` if it is an int, not a bool, from minimum to maximum."""
    return _check_int(f"Parameter '{name}'", value, minimum, maximum)


def check_ints(name: str, value: object, minimum: int = 0) -> tuple[int, ...]:
    """Return one int, or a list or tuple of distinct ints, as a tuple."""
    items = (value,) if isinstance(value, int) else value
    if not isinstance(items, list | tuple):
        raise RuntimeError(
            f"Parameter '{name}' should be int or tuple/list of int, but actually {type(value)}"
        )
    checked = tuple(_check_int(_item(name, item), item, minimum, None) for item in items)
    _check_distinct(name, checked)
    return checked


def check_int_list(name: str, value: object, minimum: int = 0) -> tuple[int, ...]:
    """Return a list or tuple of distinct ints as a tuple."""
    if not isinstance(value, list | tuple):
        raise RuntimeError(
            f"Parameter '{name}' should be tuple/list of int, but actually {type(value)}"
        )
    return check_ints(name, value, minimum)


def _item(name: str, item: object) -> str:
    return f"The item value '{item}' in parameter '{name}'"


def _check_str(prefix: str, value: object) -> str:
    if not isinstance(value, str):
        raise RuntimeError(f"{prefix} should be str, but actually {type(value)}")
    if not value:
        raise RuntimeError(f"{prefix} should not be empty str")
    return value


def _check_int(prefix: str, value: object, minimum: int, maximum: int | None) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise RuntimeError(f"{prefix} should be int, but actually {type(value)}")
    if maximum is None:
        if value < minimum:
            raise RuntimeError(f"{prefix} should be >= {minimum}")
    elif not minimum <= value <= maximum:
        raise RuntimeError(f"{prefix} should be in range [{minimum},{maximum}]")
    return value


def _check_distinct(name: str, items: Sequence[Hashable]) -> None:
    seen = set()
    for item in items:
        if item in seen:
            raise RuntimeError(f"{_item(name, item)} should not be repeated")
        seen.add(item)
