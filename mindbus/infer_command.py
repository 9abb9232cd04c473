r"""`mindbus infer`: one request from the command line, straight to the broker.

    mindbus infer add add_common \
        --json '{"x1": [[1.0, 2.0], [3.0, 4.0]], "x2": [[5.0, 6.0], [7.0, 8.0]]}'
    mindbus infer digits classify --input image=digit.png --address tcp://host:6000

Without --address it asks the server of the run directory. Numbers in JSON mean what they mean at
the RESTful door: integers are int32, other numbers float32, `{"b64": "..."}` are bytes. An input
from a file is the array of a `.npy` file, else the file's bytes. The results are printed as JSON:
one object, or an array of them if instances came as one.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import json
import os
import sys
from pathlib import Path
from typing import Any

from mindbus.bus_errors import BusError
from mindbus.config import add_run_directory, read_run_directory
from mindbus.runtime_client import NotRunningError, RuntimeClient
from protocol.head import PRIORITIES

#: Exit codes: everything succeeded; the server refused or failed; the command line is wrong.
EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2


def add_parser(subparsers: Any) -> None:
    """Add the command `infer`; the parsed arguments then have `run`, which does it."""
    parser = subparsers.add_parser(
        "infer",
        help="send one request to a running server",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("servable", help="name of the servable")
    parser.add_argument("method", help="name of the method")
    parser.add_argument(
        "--address", help="of the broker: ipc://PATH or tcp://HOST:PORT (see `mindbus status`)"
    )
    add_run_directory(parser)
    parser.add_argument("--json", metavar="INSTANCES", help="an object, or an array of objects")
    parser.add_argument(
        "--input",
        metavar="NAME=FILE",
        action="append",
        default=[],
        help="one input from a file, into every instance; may be repeated",
    )
    parser.add_argument(
        "--version-number", type=int, default=0, metavar="N", help="0: the latest (default)"
    )
    parser.add_argument(
        "--timeout", type=float, default=30.0, metavar="SECONDS", help="(default: 30)"
    )
    parser.add_argument(
        "--priority",
        choices=tuple(PRIORITIES),
        default="normal",
        help="among those that wait (normal)",
    )
    parser.add_argument(
        "--key", help="an idempotency key: the answer of the first execution comes again under it"
    )
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Send the request and print the results. Returns an exit code.

    Raises: NotRunningError or ConfigError, if no address is given and no server is found.
    """
    from mindbus.bus_client import BusClient

    address = arguments.address
    try:
        instances, is_list = read_instances(arguments.json, arguments.input)
        address = address or _running_address(arguments)
        with BusClient(address, timeout=arguments.timeout) as client:
            results = client.infer(
                arguments.servable,
                arguments.method,
                instances,
                arguments.version_number,
                return_errors=True,
                priority=arguments.priority,
                key=arguments.key,
            )
    except BusError as error:
        where = f" ({address})" if error.reason == "broker_lost" else ""
        return _complain(f"{error.reason}: {error}{where}", EXIT_FAILED)
    except (ValueError, TypeError, OSError) as error:
        return _complain(str(error), EXIT_USAGE)
    printable = [_printable(result) for result in results]
    print(json.dumps(printable if is_list else printable[0], ensure_ascii=False))
    return EXIT_FAILED if any(isinstance(one, BusError) for one in results) else EXIT_OK


def _running_address(arguments: argparse.Namespace) -> str:
    with RuntimeClient(read_run_directory(vars(arguments), os.environ)) as server:
        producers = server.status()["producers"]
    if not producers:
        raise NotRunningError("the server has no broker yet; see `mindbus status`")
    return str(producers[0])


def _complain(text: str, exit_code: int) -> int:
    print(f"mindbus infer: {text}", file=sys.stderr)
    return exit_code


# ---------------------------------------------------------------- arguments


def read_instances(text: str | None, inputs: list[str]) -> tuple[list[dict[str, Any]], bool]:
    """The instances, and whether they came as an array.

    text: JSON, or None for one instance that has only `inputs`. inputs: `name=file`.
    Raises: ValueError naming what is wrong; OSError for a file that cannot be read.
    """
    if text is None and not inputs:
        raise ValueError("--json or --input is needed")
    try:
        document = {} if text is None else json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"--json is not JSON: {error}") from None
    listed = document if isinstance(document, list) else [document]
    if not listed or not all(isinstance(instance, dict) for instance in listed):
        raise ValueError("--json must be an object, or an array of at least one object")
    instances = [
        {name: _value(name, item) for name, item in instance.items()} for instance in listed
    ]
    files = dict(_read_input(option) for option in inputs)
    return [instance | files for instance in instances], isinstance(document, list)


def _read_input(option: str) -> tuple[str, Any]:
    import numpy as np

    name, equals, path = option.partition("=")
    if not name or not equals or not path:
        raise ValueError(f"--input must be NAME=FILE, not {option!r}")
    if path.endswith(".npy"):
        return name, np.load(path, allow_pickle=False)
    return name, Path(path).read_bytes()


def _value(name: str, item: Any) -> Any:
    """A JSON value as what the bus client sends."""
    import numpy as np

    if isinstance(item, str):
        return item
    if isinstance(item, dict):
        return _bytes(name, item)
    try:
        array = np.asarray(item)
    except ValueError:
        raise ValueError(f"input {name!r}: the array is ragged") from None
    if array.dtype.kind == "b":
        return array
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    if array.dtype.kind in "iu":
        if array.size and (array.min() < -(1 << 31) or array.max() >= 1 << 31):
            raise ValueError(f"input {name!r}: an integer is outside of int32")
        return array.astype(np.int32)
    raise ValueError(f"input {name!r}: {json.dumps(item)[:100]} is neither number nor bool")


def _bytes(name: str, item: dict[str, Any]) -> bytes:
    text = item.get("b64")
    if len(item) != 1 or not isinstance(text, str):
        raise ValueError(f'input {name!r}: an object must be {{"b64": "..."}}')
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"input {name!r}: {error}") from None


# ---------------------------------------------------------------- results


def _printable(result: dict[str, Any] | BusError) -> dict[str, Any]:
    if isinstance(result, BusError):
        return {"error": str(result), "reason": result.reason}
    return {name: _jsonable(value) for name, value in result.items()}


def _jsonable(value: Any) -> Any:
    import numpy as np

    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            finite = np.isfinite(value)
            value = value.astype(object)
            value[~finite] = None  # JSON has no word for them; the RESTful door says null, too
        return value.tolist()
    return value
