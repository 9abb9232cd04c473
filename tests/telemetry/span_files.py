"""An exporter for tests: each process writes its spans into a file of its own, a JSON line each."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

DIRECTORY = "MINDBUS_TEST_SPANS"
NAME = f"{__name__}:SpanFiles"


class SpanFiles(SpanExporter):
    """Writes to the directory that the environment names."""

    def __init__(self) -> None:
        self._path = Path(os.environ[DIRECTORY], f"{os.getpid()}.jsonl")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._path.open("a") as file:
            for span in spans:
                file.write(json.dumps(as_plain(span)) + "\n")
        return SpanExportResult.SUCCESS


def as_plain(span: ReadableSpan) -> dict[str, Any]:
    """What tests look at."""
    context = span.get_span_context()
    assert context is not None
    return {
        "name": span.name,
        "trace": f"{context.trace_id:032x}",
        "span": f"{context.span_id:016x}",
        "parent": None if span.parent is None else f"{span.parent.span_id:016x}",
        "begin_ns": span.start_time,
        "end_ns": span.end_time,
        "attributes": dict(span.attributes or {}),
        "is_error": not span.status.is_ok and not span.status.is_unset,
    }


def read_spans(directory: Path) -> list[dict[str, Any]]:
    """All that processes have written."""
    return [
        json.loads(line)
        for path in sorted(directory.glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
