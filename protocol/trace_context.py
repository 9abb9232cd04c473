"""W3C Trace Context (level 1): the header `traceparent`, as the head carries it. Pure.

    00-<trace id, 32 hex>-<parent id, 16 hex>-<flags, 2 hex>

What is malformed is treated as if it had not come, as the specification wants it (§3.2): a bad
header never fails a request.
"""

from __future__ import annotations

import re
from typing import NamedTuple

#: Bit 0 of the flags: whoever called us records this trace.
SAMPLED = 1

#: Version ff is forbidden; a later one than 00 may have more behind the flags.
_FORM = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class TraceContext(NamedTuple):
    """Which trace a request belongs to, and which span is the parent of ours."""

    trace_id: bytes
    span_id: bytes
    is_sampled: bool


def parse_traceparent(text: str) -> TraceContext | None:
    """The context in a `traceparent`; None if it is none."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if (version == "00" and rest) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    is_sampled = bool(int(flags, 16) & SAMPLED)
    return TraceContext(bytes.fromhex(trace_id), bytes.fromhex(span_id), is_sampled)


def format_traceparent(context: TraceContext) -> str:
    """The header for a context."""
    trace_id, span_id, is_sampled = context
    return f"00-{trace_id.hex()}-{span_id.hex()}-{int(is_sampled):02x}"
