"""The OpenAPI document of the REST door, from `openapi.json` beside this file.

The file leaves out what follows from the rest: a path below `/v2/models/{model}` exists once more
for each version, and the document has the version of the server.
"""

from __future__ import annotations

from importlib.resources import files

import orjson

_MODEL = "/v2/models/{model}"
_VERSION = "/versions/{version}"
_VERSION_PARAMETER = {"$ref": "#/components/parameters/version"}


def openapi_document(version: str) -> bytes:
    """The document as JSON. version: of the server."""
    found = orjson.loads(files(__package__).joinpath("openapi.json").read_bytes())
    found["info"]["version"] = version
    paths = found["paths"]
    for path in [path for path in paths if path.startswith(_MODEL)]:
        paths[_MODEL + _VERSION + path.removeprefix(_MODEL)] = {
            verb: operation
            | {
                "operationId": f"{operation['operationId']}OfVersion",
                "parameters": [*operation["parameters"], _VERSION_PARAMETER],
            }
            for verb, operation in paths[path].items()
        }
    return orjson.dumps(found)
