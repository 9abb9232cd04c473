"""The request of peers with a JSON of their own: {"x1": [...], "x2": [...]}, for {"y": [...]}."""

from __future__ import annotations

import json

from bench import bodies
from bench.endpoint import Endpoint, small_http


def json_endpoint(address: str, path: str) -> Endpoint:
    """The small request as such a JSON document."""
    body = json.dumps({"x1": bodies.X1.tolist(), "x2": bodies.X2.tolist()}).encode()
    return small_http(address, path, body=body)
