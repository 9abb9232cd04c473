"""What a MindIR file says of its own inputs and outputs: names, dtypes and shapes.

A MindIR file is one protobuf message, `mind_ir.ModelProto`. Its graph lists inputs and outputs as
`ValueInfoProto`, each with a tensor type, or for several outputs with one value of type TUPLE that
holds the tensor types, nested as the Python code returned them. Names carry the scope in which
the exporter met them, `12_3___main___Net_construct_5:image`; the scope says nothing to a reader
and is cut. An encrypted file is decrypted in memory by MindSpore and never written to disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from workers.backends.base import TensorSpec

#: numpy dtypes by their number in `TensorProto.DataType`. What is missing cannot be served.
DTYPES: dict[int, np.dtype[Any]] = {
    number: np.dtype(name)
    for number, name in {
        1: "float32",
        2: "uint8",
        3: "int8",
        4: "uint16",
        5: "int16",
        6: "int32",
        7: "int64",
        9: "bool",
        10: "float16",
        11: "float64",
        12: "uint32",
        13: "uint64",
        17: "float64",
    }.items()
}

#: A dimension known only at run time, in a MindIR file and in a TensorSpec.
DYNAMIC = -1


class MindirError(Exception):
    """A MindIR file cannot be read; the text names the file and says why."""


class GraphSignature(NamedTuple):
    """Inputs and outputs of one graph, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def read_signature(
    path: Path, dec_key: bytes | None = None, dec_mode: str = "AES-GCM"
) -> GraphSignature:
    """Read the signature of a MindIR file. Imports MindSpore.

    dec_key, dec_mode: as of `mindspore.load`; a file that is not encrypted refuses a key, as
        MindSpore does.
    Raises: MindirError for a missing, garbled, or (without the right key) encrypted file, and
        for inputs and outputs that are not tensors of a dtype that can be served.
    """
    from google.protobuf.message import DecodeError
    from mindspore.train import mind_ir_pb2

    model = mind_ir_pb2.ModelProto()
    reason = "is not a MindIR model: it has no graph"
    try:
        model.ParseFromString(_model_bytes(path, dec_key, dec_mode))
        has_graph = bool(model.graph.output)
    except DecodeError:
        has_graph = False
        reason = "is not a MindIR model, or it is damaged or cut short"
    if not has_graph:
        if dec_key is not None:
            # A wrong key passes AES-CBC's check of the padding about once in 256 times.
            reason = _undecryptable(dec_mode)
        raise MindirError(f"model file '{path}' {reason}")
    try:
        return GraphSignature(
            tuple(spec for value in model.graph.input for spec in _specs(value)),
            tuple(spec for value in model.graph.output for spec in _specs(value)),
        )
    except MindirError as error:
        raise MindirError(f"model file '{path}': {error}") from None


def _model_bytes(path: Path, dec_key: bytes | None, dec_mode: str) -> bytes:
    # MindSpore offers no public way to decrypt in memory or to recognise an encrypted file.
    from mindspore._c_expression import _decrypt, _is_cipher_file

    try:
        with path.open("rb") as file:
            content = None if _is_cipher_file(str(path)) else file.read()
    except OSError as error:
        raise MindirError(f"model file '{path}' cannot be read: {error.strerror}") from None
    if dec_key is None:
        if content is None:
            raise MindirError(f"model file '{path}' is encrypted and no dec_key is given")
        return content
    if content is not None:
        raise MindirError(f"model file '{path}' is not encrypted, but a dec_key is given")
    try:
        decrypted = _decrypt(str(path), dec_key, len(dec_key), dec_mode)
    except (RuntimeError, ValueError) as error:
        raise MindirError(f"model file '{path}' cannot be decrypted: {error}") from None
    if decrypted is None:
        raise MindirError(f"model file '{path}' {_undecryptable(dec_mode)}")
    return bytes(decrypted)


def _undecryptable(dec_mode: str) -> str:
    return f"cannot be decrypted with this dec_key and dec_mode '{dec_mode}'"


# ---------------------------------------------------------------- types


def _specs(value: Any) -> Iterator[TensorSpec]:
    """The tensors of one ValueInfoProto; a tuple gives one per leaf, `name.0`, `name.1`, …"""
    name = value.name.split(":", 1)[-1]
    if value.tensor:
        yield _spec(name, value.tensor[0])
    elif value.HasField("attr_info"):
        yield from _leaves(name, value.attr_info)
    else:
        raise MindirError(f"the type of '{name}' is not written in the file")


def _leaves(name: str, attribute: Any) -> Iterator[TensorSpec]:
    if attribute.values:
        for index, item in enumerate(attribute.values):
            yield from _leaves(f"{name}.{index}", item)
        return
    if not attribute.tensors:
        kind = type(attribute).AttributeType.Name(attribute.type)
        raise MindirError(f"'{name}' is a {kind}, not a tensor")
    yield _spec(name, attribute.tensors[0], is_scalar=attribute.type == attribute.SCALAR)


def _spec(name: str, tensor: Any, is_scalar: bool = False) -> TensorSpec:
    dtype = DTYPES.get(tensor.data_type)
    if dtype is None:
        kind = type(tensor).DataType.Name(tensor.data_type)
        raise MindirError(f"'{name}' has dtype {kind}, which cannot be served")
    shape = () if is_scalar else tuple(tensor.dims)
    if any(dimension < DYNAMIC for dimension in shape):
        raise MindirError(f"'{name}' has a rank known only at run time, which cannot be served")
    return TensorSpec(name, dtype, shape)
