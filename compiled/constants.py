"""Constants are known by their names in capitals; mypyc has to be told that they are constants.

What is not `Final` is looked up in a dict at each use, which is slower than what Python does. Only
the copies of our sources that are compiled say so; their lines stay where they are.
"""

from __future__ import annotations

import ast
import re

_CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]+")
_FUTURE = "from __future__ import annotations"


def with_final_constants(source: str) -> str:
    """The same module, its constants declared as such. One without annotations stays as it is."""
    lines = source.split("\n")
    if _FUTURE not in lines:
        return source
    for statement in reversed(ast.parse(source).body):
        match statement:
            case ast.Assign(targets=[ast.Name(id=name) as target]) if _is_constant(name):
                _insert(lines, target.end_lineno, target.end_col_offset, ": Final")
            case ast.AnnAssign(target=ast.Name(id=name), annotation=kind, value=ast.expr()) if (
                _is_constant(name) and not ast.unparse(kind).startswith("Final")
            ):
                _insert(lines, kind.end_lineno, kind.end_col_offset, "]")
                _insert(lines, kind.lineno, kind.col_offset, "Final[")
    lines[lines.index(_FUTURE)] = f"{_FUTURE}; from typing import Final"
    return "\n".join(lines)


def _is_constant(name: str) -> bool:
    return _CONSTANT.fullmatch(name) is not None


def _insert(lines: list[str], line: int | None, bytes_before: int | None, text: str) -> None:
    """Put a text into a line, at a place as `ast` counts it."""
    assert line is not None
    raw = lines[line - 1].encode()
    lines[line - 1] = (raw[:bytes_before] + text.encode() + raw[bytes_before:]).decode()
