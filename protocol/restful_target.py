"""The address of a RESTful request: `/model/<name>[/version/<n>]:<method>`, in either order.

Beyond MindSpore Serving, `/model/<name>/label/<label>:<method>` names a version by its label.
"""

from __future__ import annotations

from protocol.errors import RequestError
from protocol.values import RequestSpec

#: Versions end below this (the original keeps 32 bits, without the last value).
VERSION_END = 4_294_967_295

_SPACES = " \t\n\v\f\r"


def parse_target(target: bytes) -> RequestSpec:
    """Servable, method and version of a raw request target; no version means the latest, 0.

    `/version/1/model/add:m` is the same as `/model/add/version/1:m`, and other segments before
    or between are passed over. As in the original nothing is percent-decoded; unlike it, a query
    is not part of the method, and a servable may have `model` or `version` in its name, because
    keywords are whole segments.

    A label becomes part of the servable's name, `<name>/<label>`, as on every other door.

    Raises: RequestError (invalid_inputs); model is checked before version before method, label.
    """
    path = target.partition(b"?")[0].decode("utf-8", "replace")
    where, _, method = path.partition(":")
    words: dict[str, str] = {}
    segments = iter(where.split("/"))
    for segment in segments:
        if segment in ("model", "version", "label") and segment not in words:
            words[segment] = next(segments, "")
    servable = words.get("model")
    if not servable:
        raise _illegal("the keyword:[model] must contain.")
    version = _parse_version(words["version"]) if "version" in words else 0
    if not method:
        raise _illegal("the keyword:[service method] must contain.")
    if "label" in words:
        if not words["label"]:
            raise _illegal("the keyword:[label] has no value.")
        if version:
            raise _illegal("the keywords [version] and [label] exclude each other.")
        servable = f"{servable}/{words['label']}"
    return RequestSpec(servable, method, version)


def _parse_version(text: str) -> int:
    """A number as C reads it: spaces and a sign before, anything behind the digits."""
    number = text.lstrip(_SPACES)
    sign, digits = (number[0], number[1:]) if number[:1] in ("+", "-") else ("", number)
    count = 0
    while count < len(digits) and digits[count] in "0123456789":
        count += 1
    if count == 0:
        raise _illegal(f"the keyword:[version] value invalid, request version number {text}")
    significant = digits[:count].lstrip("0")
    # Twenty digits are out of range anyway; int() of a hostile length would take quadratic time.
    version = int(significant[:20] or "0")
    if version >= VERSION_END or (sign == "-" and version > 0):
        raise _illegal(f"version number range failed, request version number {text}")
    return version


def _illegal(rule: str) -> RequestError:
    return RequestError("invalid_inputs", f"please check url, {rule}")
