"""How one log line looks: MindSpore Serving's glog shape, or one JSON object. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

from telemetry.glog_levels import LEVEL_NAMES

#: Characters of one message or value; a tensor that slipped into a log call does not fill a disk.
TEXT_CHARACTERS_MAX: Final = 8192

#: What most values are: printable ASCII without blanks, quotes and equals signs.
_PLAIN: Final = re.compile(r"[!#-<>-~]+")


class LineOrigin(NamedTuple):
    """Where and when a line was logged."""

    level: int
    submodule: str
    program: str
    process_id: int
    thread_id: int
    #: Local time with its zone.
    time: datetime
    file: str
    line: int
    function: str


def glog_line(
    origin: LineOrigin, message: str, values: Mapping[str, object], traceback: str | None
) -> str:
    """`[LEVEL] SERVING(pid,thread,program):time [file:line] function] message key=value…`.

    Control characters in message and values are escaped, so that a client's text cannot forge a
    line; a traceback follows on lines of its own. The result ends with a newline.
    """
    now = origin.time
    stamp = f"{now:%Y-%m-%d-%H:%M:%S}.{now.microsecond // 1000:03d}.{now.microsecond % 1000:03d}"
    prefix = (
        f"[{LEVEL_NAMES[origin.level]}] "
        f"SERVING({origin.process_id},{origin.thread_id:x},{origin.program}):{stamp} "
        f"[{origin.file}:{origin.line}] {origin.function}]"
    )
    parts = [prefix, _escape(_cut(message))]
    parts += [f"{key}={_glog_value(value)}" for key, value in values.items()]
    line = " ".join(parts) + "\n"
    if traceback:
        line += traceback.rstrip("\n") + "\n"
    return line


def json_line(
    origin: LineOrigin, message: str, values: Mapping[str, object], traceback: str | None
) -> str:
    """One JSON object with the same facts; a value never hides a fact of the line itself."""
    facts: dict[str, object] = {key: _json_value(value) for key, value in values.items()}
    facts |= {
        "time": origin.time.isoformat(timespec="microseconds"),
        "level": LEVEL_NAMES[origin.level],
        "submodule": origin.submodule,
        "program": origin.program,
        "process_id": origin.process_id,
        "thread_id": origin.thread_id,
        "file": origin.file,
        "line": origin.line,
        "function": origin.function,
        "message": _cut(message),
    }
    if traceback:
        facts["traceback"] = traceback
    # Escaped to ASCII: no lone surrogate of a broken file name can make the line unwritable.
    return json.dumps(facts) + "\n"


def _glog_value(value: object) -> str:
    text = _cut(_text(value))
    if _PLAIN.fullmatch(text) or _is_plain(text):
        return text
    return '"' + _escape(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _is_plain(text: str) -> bool:
    return text.isprintable() and bool(text) and not any(each in text for each in ' "=')


def _json_value(value: object) -> object:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else str(value)
    return _cut(_text(value))


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)


def _escape(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def _cut(text: str) -> str:
    if len(text) <= TEXT_CHARACTERS_MAX:
        return text
    return f"{text[:TEXT_CHARACTERS_MAX]}…({len(text) - TEXT_CHARACTERS_MAX} more characters)"
