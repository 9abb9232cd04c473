"""Checks of what a start script passes; every failure is a RuntimeError.

RuntimeError even for wrong types, and with these words: MindSpore Serving raises it everywhere,
and start scripts and their tests look for the texts.
"""

from __future__ import annotations


def check_str(name: str, value: object) -> str:
    """Return `value` if it is a text that is not empty."""
    if not isinstance(value, str):
        raise RuntimeError(f"Parameter '{name}' should be str, but actually {type(value)}")
    if not value:
        raise RuntimeError(f"Parameter '{name}' should not be empty str")
    return value


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


def check_ints(name: str, value: object, minimum: int) -> tuple[int, ...]:
    """Return one int, or a list or tuple of distinct ints, as a tuple."""
    items = (value,) if isinstance(value, int) else value
    if not isinstance(items, list | tuple):
        raise RuntimeError(
            f"Parameter '{name}' should be int or tuple/list of int, but actually {type(value)}"
        )
    checked: list[int] = []
    for item in items:
        prefix = f"The item value '{item}' in parameter '{name}'"
        if item in checked:
            raise RuntimeError(f"{prefix} should not be repeated")
        checked.append(_check_int(prefix, item, minimum, None))
    return tuple(checked)


def _check_int(prefix: str, value: object, minimum: int, maximum: int | None) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise RuntimeError(f"{prefix} should be int, but actually {type(value)}")
    if maximum is None:
        if value < minimum:
            raise RuntimeError(f"{prefix} should be >= {minimum}")
    elif not minimum <= value <= maximum:
        raise RuntimeError(f"{prefix} should be in range [{minimum},{maximum}]")
    return value
