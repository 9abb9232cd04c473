"""What the queries of the Grafana dashboard ask for: names of samples, each with its labels."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PATH = Path(__file__).resolve().parents[2] / "docs" / "grafana" / "mindbus.json"

_SELECTOR = re.compile(r"\b(mindbus_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!=|!~|=)\s*"')
_GROUPING = re.compile(r"\bby \(([^)]*)\)")
_LEGEND = re.compile(r"\{\{(\w+)\}\}")


def dashboard() -> dict[str, Any]:
    """The file, parsed."""
    content: dict[str, Any] = json.loads(PATH.read_text())
    return content


def queries() -> Iterator[tuple[str, str, str]]:
    """Title, expression and legend of every query of every panel."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"], target["legendFormat"]


def asked() -> dict[str, set[str]]:
    """By name of a sample: the labels that queries match or group it by, or show.

    A label that an expression groups by, or a legend shows, has to be there in each of its samples.
    """
    found: dict[str, set[str]] = {}
    for _, expression, legend in queries():
        shared = {
            label.strip()
            for group in _GROUPING.findall(expression)
            for label in group.split(",")
            if label.strip()
        }
        shared |= set(_LEGEND.findall(legend))
        for name, matchers in _SELECTOR.findall(expression):
            found.setdefault(name, set()).update(shared, _MATCHER.findall(matchers))
    return found
