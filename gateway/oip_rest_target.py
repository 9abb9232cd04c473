"""Targets of the Open Inference Protocol's REST form. Pure.

    GET   /v2                                                server metadata
    GET   /v2/health/live · /v2/health/ready
    GET   /v2/models                                         names of models
    GET   /v2/models/M[/versions/V]                          model metadata
    GET   /v2/models/M[/versions/V]/ready · /config · /stats
    GET   /v2/models/stats                                   statistics of every model
    POST  /v2/models/M[/versions/V]/infer
    GET, POST  /v2/logging · /v2/trace/setting · /v2/models/M[/versions/V]/trace/setting
    POST  /v2/repository/index
    POST  /v2/repository/models/M/load · /unload

Names are percent-encoded where they have to be. A query is not looked at.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

SERVER_METADATA = "server_metadata"
LIVE = "live"
READY = "ready"
MODELS = "models"
MODEL_METADATA = "model_metadata"
MODEL_READY = "model_ready"
MODEL_CONFIG = "model_config"
STATISTICS = "statistics"
INFER = "infer"
INDEX = "index"
LOAD = "load"
UNLOAD = "unload"
LOG_SETTINGS = "log_settings"
TRACE_SETTINGS = "trace_settings"

#: The verbs of each action; GET if it is not here.
VERBS = {
    INFER: ("POST",),
    INDEX: ("POST",),
    LOAD: ("POST",),
    UNLOAD: ("POST",),
    LOG_SETTINGS: ("GET", "POST"),
    TRACE_SETTINGS: ("GET", "POST"),
}

_OF_MODEL = {
    (): MODEL_METADATA,
    ("ready",): MODEL_READY,
    ("config",): MODEL_CONFIG,
    ("stats",): STATISTICS,
    ("infer",): INFER,
    ("trace", "setting"): TRACE_SETTINGS,
}

_FIXED = {
    (): SERVER_METADATA,
    ("health", "live"): LIVE,
    ("health", "ready"): READY,
    ("models",): MODELS,
    ("models", "stats"): STATISTICS,
    ("repository", "index"): INDEX,
    ("logging",): LOG_SETTINGS,
    ("trace", "setting"): TRACE_SETTINGS,
}

ACTIONS = frozenset((*_OF_MODEL.values(), *_FIXED.values(), LOAD, UNLOAD))


#: Targets that are remembered, and how long one may be for that.
KEPT_MAX = 1024
KEPT_BYTES_MAX = 256


class OipTarget(NamedTuple):
    """What a target names."""

    action: str
    model: str = ""
    version: str = ""


def parse_oip_target(target: bytes) -> OipTarget | None:
    """Read a target that begins with `/v2`; None if it names nothing."""
    return (_kept if len(target) <= KEPT_BYTES_MAX else _parse)(target)


def _parse(target: bytes) -> OipTarget | None:
    path = target.partition(b"?")[0]
    try:
        segments = [unquote_to_bytes(each).decode() for each in path.split(b"/")[2:]]
    except UnicodeDecodeError:
        return None
    if segments and not segments[-1]:
        segments.pop()  # one slash at the end says nothing
    fixed = _FIXED.get(tuple(segments))
    if fixed is not None:
        return OipTarget(fixed)
    match segments:
        case ["repository", "models", model, ("load" | "unload") as action]:
            return OipTarget(action, model)
        case ["models", model, "versions", version, *rest]:
            action_of_version = _OF_MODEL.get(tuple(rest))
            if action_of_version is None or not version:
                return None
            return OipTarget(action_of_version, model, version)
        case ["models", model, *rest]:
            action_of_model = _OF_MODEL.get(tuple(rest))
            return None if action_of_model is None else OipTarget(action_of_model, model)
    return None


#: Clients ask for the same again and again.
_kept = lru_cache(maxsize=KEPT_MAX)(_parse)
