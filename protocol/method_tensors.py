"""What is known of methods' tensors, as READY and STATS carry it.

A map from a method's name to [is_batched, [inputs], [outputs], batch_size_max]; an input or output
is [dtype, shape], or nil if nothing is known. Methods of which nothing is known are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from protocol import limits
from protocol.errors import RemoteProtocolError
from protocol.values import (
    BYTES_DTYPE,
    DTYPES,
    UNKNOWN_TENSORS,
    InstanceSpec,
    MethodSignature,
    MethodTensors,
)


def as_document(methods: Sequence[MethodSignature]) -> dict[str, Any]:
    """The map of some methods."""
    return {
        method.name: [
            method.tensors.is_batched,
            _specs_document(method.tensors.inputs),
            _specs_document(method.tensors.outputs),
            method.tensors.batch_size_max,
        ]
        for method in methods
        if method.tensors is not UNKNOWN_TENSORS
    }


def added_to(methods: Sequence[MethodSignature], document: object) -> tuple[MethodSignature, ...]:
    """The methods with what a map says of them. Raises RemoteProtocolError."""
    if not isinstance(document, dict):
        raise RemoteProtocolError(f"key 'tensors' is a {type(document).__name__}, not a map")
    return tuple(
        method._replace(tensors=_read(method, document[method.name]))
        if method.name in document
        else method
        for method in methods
    )


def read(name: str, document: Mapping[str, Any]) -> MethodTensors:
    """What a map that was checked before says of a method."""
    if name not in document:
        return UNKNOWN_TENSORS
    is_batched, inputs, outputs, batch_size_max = document[name]
    return MethodTensors(is_batched, _read_specs(inputs), _read_specs(outputs), batch_size_max)


def _specs_document(specs: Sequence[InstanceSpec | None]) -> list[list[Any] | None]:
    return [None if spec is None else [spec.dtype, list(spec.shape)] for spec in specs]


def _read(method: MethodSignature, item: object) -> MethodTensors:
    if (
        not isinstance(item, list)
        or len(item) != 4
        or type(item[0]) is not bool
        or not _are_specs(item[1], len(method.inputs))
        or not _are_specs(item[2], len(method.outputs))
        or type(item[3]) is not int
        or item[3] < 0
    ):
        raise RemoteProtocolError(
            f"tensors of method {method.name} are not [is_batched, [inputs], [outputs], "
            f"batch_size_max], but {item!r:.100}"
        )
    return read(method.name, {method.name: item})


def _are_specs(items: object, count: int) -> bool:
    """One per input or output, or none at all."""
    return isinstance(items, list) and len(items) in (0, count) and all(map(_is_spec, items))


def _is_spec(item: object) -> bool:
    if item is None:
        return True
    return (
        isinstance(item, list)
        and len(item) == 2
        and (item[0] in DTYPES or item[0] == BYTES_DTYPE)
        and isinstance(item[1], list)
        and len(item[1]) <= limits.TENSOR_DIMENSIONS_MAX
        and all(type(length) is int and length >= -1 for length in item[1])
    )


def _read_specs(items: Sequence[Any]) -> tuple[InstanceSpec | None, ...]:
    return tuple(None if item is None else InstanceSpec(item[0], tuple(item[1])) for item in items)
