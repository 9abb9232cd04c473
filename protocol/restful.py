"""The RESTful dialect of MindSpore Serving: JSON over HTTP, one frame each way.

The gateway reads only the target (`parse_target`); the document goes to the worker unopened. Only
a request that is refused otherwise is opened in the gateway, so that the first error is reported
in the order that clients know: JSON (`parse_json`), target, structure (`check_request`), then
servable and method. Every reply is HTTP 200; the text tells success from failure. Only a client
that sets a deadline, which MindSpore Serving does not know, is told by 504 that it has passed.
"""

from __future__ import annotations

from protocol.restful_json import parse_json
from protocol.restful_reply import encode_failure, encode_reply
from protocol.restful_request import check_request, decode_request
from protocol.restful_target import parse_target
from protocol.restful_timeout import parse_timeout

__all__ = [
    "check_request",
    "decode_request",
    "encode_failure",
    "encode_reply",
    "parse_json",
    "parse_target",
    "parse_timeout",
]
