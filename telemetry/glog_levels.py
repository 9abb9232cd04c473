"""Which lines are logged: GLOG_v and MS_SUBMODULE_LOG_v, as pure functions of the environment.

MindSpore Serving had two loggers that read these variables by different rules. This one has one:

- `GLOG_v` is 0 DEBUG, 1 INFO, 2 WARNING, 3 ERROR or 4 CRITICAL, blanks around it ignored. Unset
  or empty means 2. Any other text gives a warning and means 2. (The C++ core took `abc` as 0; the
  Python package died of it, and of MindSpore's own 4. No setting that worked there changes
  meaning here, and no process of ours dies of a level. `mindspore_serving.log` still raises.)
- `MS_SUBMODULE_LOG_v` is `{NAME:NUMBER,…}`. A key of our own rooms (BROKER, WORKER, GATEWAY,
  PROTOCOL) wins over SERVING, SERVING wins over GLOG_v. An error of grammar voids the whole value;
  a level other than 0 to 3 voids that one key. Both give MindSpore's own warning. All other names
  belong to MindSpore, which reads the same variable in the worker, and are none of our business.
- Warnings about these variables are themselves logged at WARNING, filtered by GLOG_v alone.

Nothing here writes to the environment: MindSpore must see it as the user set it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

DEBUG = 0
INFO = 1
WARNING = 2
ERROR = 3
CRITICAL = 4

#: What a line shows between its brackets; MindSpore Serving calls level 4 EXCEPTION.
LEVEL_NAMES = ("DEBUG", "INFO", "WARNING", "ERROR", "EXCEPTION")

#: MindSpore's and MindSpore Serving's default.
LEVEL_DEFAULT = WARNING

#: The key of MS_SUBMODULE_LOG_v that all our rooms obey.
SERVING = "SERVING"

#: Our submodules: SERVING for everything, and one for each room.
SUBMODULES = (SERVING, "BROKER", "WORKER", "GATEWAY", "PROTOCOL")

#: The text that MindSpore Serving's Python package raises for a bad level, kept word for word.
LEVEL_ERROR = (
    "Incorrect log level:{value}, Please check the configuration of GLOG_v or "
    "GLOG_stderrthreshold, desired log level :"
    "{{'3': 'ERROR', '2': 'WARNING', '1': 'INFO', '0': 'DEBUG'}}"
)

_GRAMMAR_ERROR = (
    "Parse submodule log configuration text error, expect `{expected}`, but got `{got}`. "
    "The whole configuration will be ignored."
)

_TOKEN = re.compile(
    r"[ \t]*(?:(?P<punctuation>[{}:,])|(?P<variable>[A-Za-z][A-Za-z0-9_]*)|(?P<number>[0-9]+)"
    r"|(?P<end>\Z)|(?P<invalid>.))",
    re.ASCII | re.DOTALL,
)


class Levels(NamedTuple):
    """The level of each submodule, and what was wrong with the variables that said so."""

    #: GLOG_v: the level of everything that has no key of its own, and of `warnings`.
    base: int
    #: submodule → 0 to 4; has exactly the keys of `SUBMODULES`.
    of_submodule: Mapping[str, int]
    warnings: tuple[str, ...]


class GrammarError(ValueError):
    """MS_SUBMODULE_LOG_v breaks its grammar; the text is the warning for it."""


def read_levels(environment: Mapping[str, str]) -> Levels:
    """Decide the level of every submodule from GLOG_v and MS_SUBMODULE_LOG_v."""
    warnings: list[str] = []
    base = parse_glog_v(environment.get("GLOG_v", ""))
    if base is None:
        base = LEVEL_DEFAULT
        warnings.append(LEVEL_ERROR.format(value=environment["GLOG_v"]))
    try:
        configured = parse_submodules(environment.get("MS_SUBMODULE_LOG_v", ""))
    except GrammarError as error:
        warnings.append(str(error))
        configured = {}
    own: dict[str, int] = {}
    for name, text in configured.items():
        if name not in SUBMODULES:
            continue
        if text in ("0", "1", "2", "3"):
            own[name] = int(text)
        else:
            warnings.append(f"Illegal log level value {text} for {name}, ignore it.")
    serving = own.get(SERVING, base)
    levels = {name: own.get(name, serving) for name in SUBMODULES}
    return Levels(base, levels, tuple(warnings))


def parse_glog_v(text: str) -> int | None:
    """Read the text of GLOG_v; empty means the default, None means that it is no level."""
    stripped = text.strip()
    if not stripped:
        return LEVEL_DEFAULT
    return int(stripped) if stripped in ("0", "1", "2", "3", "4") else None


def parse_submodules(text: str) -> dict[str, str]:
    """Read `{NAME:NUMBER,…}` into name → digits; a repeated name keeps its last number.

    Blanks and tabs between tokens are skipped, text after `}` is ignored, an empty text is an
    empty answer. Raises: GrammarError with MindSpore's text for anything else.
    """
    token, position = _next_token(text, 0)
    if token.kind == "end-of-string":
        return {}
    _expect("{", token)
    numbers: dict[str, str] = {}
    while True:
        name, position = _next_token(text, position)
        _expect("variable", name)
        colon, position = _next_token(text, position)
        _expect(":", colon)
        number, position = _next_token(text, position)
        _expect("number", number)
        numbers[name.text] = number.text
        separator, position = _next_token(text, position)
        if separator.kind != ",":
            _expect("}", separator)
            return numbers


class _Token(NamedTuple):
    """kind: as the warning names it; text: the characters it was read from."""

    kind: str
    text: str


def _next_token(text: str, position: int) -> tuple[_Token, int]:
    match = _TOKEN.match(text, position)
    assert match is not None, "every position has a token: the last two branches take the rest"
    kind = match.lastgroup
    assert kind is not None
    word = match[kind]
    if kind == "punctuation":
        kind = word
    elif kind == "end":
        kind = "end-of-string"
    return _Token(kind, word), match.end()


def _expect(expected: str, token: _Token) -> None:
    if token.kind != expected:
        raise GrammarError(_GRAMMAR_ERROR.format(expected=expected, got=token.kind))
