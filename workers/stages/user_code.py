"""The one place where exceptions of user code stop.

A worker runs functions that it did not write. Whatever they raise fails the instance at hand,
never the worker; so nothing else in `workers/` catches `Exception`. SystemExit, KeyboardInterrupt
and other BaseExceptions are user code's too: an operator's Ctrl-C reaches a worker process as a
signal that its bus reads, and a worker in a thread not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

T = TypeVar("T")

#: Characters of one error text; longer ones keep their beginning and their end. MindSpore
#: Serving cuts at 384 bytes, also in the middle of a character; clients lose the cause by it.
ERROR_TEXT_CHARACTERS_MAX = 4096


class Raised(NamedTuple):
    """What user code raised instead of returning."""

    error: BaseException


class Fault(NamedTuple):
    """Something for the worker's log that clients do not see. where: says which stage or model."""

    where: str
    error: BaseException


def run_user_code(call: Callable[[], T]) -> T | Raised:
    """Call `call`; whatever it raises comes back as a value."""
    try:
        return call()
    except BaseException as error:
        return Raised(error)


def error_text(error: BaseException) -> str:
    """The exception's own text, or its type's name where it has none (`assert x > 0`).

    Valid UTF-8 and of bounded length, even if its `str()` fails.
    """
    text = run_user_code(lambda: str(error))
    if isinstance(text, Raised) or not text:
        return type(error).__name__
    if len(text) > ERROR_TEXT_CHARACTERS_MAX:
        half = ERROR_TEXT_CHARACTERS_MAX // 2
        text = f"{text[:half]}...{text[-half:]}"
    return text.encode("utf-8", "backslashreplace").decode()
