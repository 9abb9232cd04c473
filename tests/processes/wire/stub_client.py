"""A client with nothing but grpcio and a stub that protoc made: `stub_client.py ADDRESS RELEASE`.

It runs in a process of its own, because the messages of both releases and of our own code have the
same names. RELEASE is `1_2` or `2_0`. Prints what was answered as one JSON document.
"""

from __future__ import annotations

import importlib
import json
import struct
import sys
from typing import Any

import grpc

DEADLINE_S = 60.0


def main(address: str, release: str) -> None:
    """Ask everything and print the answers."""
    pb = importlib.import_module(f"ms_service_{release}_pb2")
    stub_of = importlib.import_module(f"ms_service_{release}_pb2_grpc").MSServiceStub
    square = pb.TensorShape(dims=[2, 2])

    def floats(*values: float) -> Any:
        return pb.Tensor(shape=square, dtype=pb.MS_FLOAT32, data=struct.pack("<4f", *values))

    def number(value: float) -> Any:
        return pb.Tensor(dtype=pb.MS_FLOAT32, data=struct.pack("<f", value))

    def text(dtype: int, content: bytes) -> Any:
        return pb.Tensor(shape=pb.TensorShape(dims=[1]), dtype=dtype, bytes_val=[content])

    with grpc.insecure_channel(address) as channel:
        stub = stub_of(channel)

        def ask(method: str, *instances: dict[str, Any], version: int = 0) -> Any:
            spec = pb.ServableSpec(name="probe", method_name=method, version_number=version)
            request = pb.PredictRequest(
                servable_spec=spec, instances=[pb.Instance(items=items) for items in instances]
            )
            return plain(stub.Predict(request, timeout=DEADLINE_S))

        answers = {
            "sums": ask(
                "add",
                *({"x1": floats(n, 2, 3, 4), "x2": floats(1, 1, 1, n)} for n in range(3)),
                version=1,
            ),
            "text": ask("echo", {"x": text(pb.MS_STRING, "grüße".encode())}),
            "bytes": ask("echo", {"x": text(pb.MS_BYTES, b"\xff\x00")}),
            "mixed": ask("checked", {"x": number(5)}, {"x": number(-1)}),
            "refused": ask("checked", {"x": number(-1)}),
            "unknown": ask("add", {"x": number(1)}, version=7),
            "nothing": ask("add"),
        }
        if release == "2_0":
            place = pb.ShmTensorData(memory_key="/key", bytes_size=16, data_size=16)
            shared = pb.Tensor(shape=square, dtype=pb.MS_FLOAT32, shm_data=place)
            answers["shared input"] = ask("add", {"x1": shared, "x2": shared})
            spec = pb.ServableSpec(name="probe", method_name="echo")
            instance = pb.Instance(items={"x": number(1)}, output_buffers={"x": place})
            request = pb.PredictRequest(servable_spec=spec, instances=[instance])
            answers["shared output"] = plain(stub.Predict(request, timeout=DEADLINE_S))
    print(json.dumps(answers))


def plain(reply: Any) -> Any:
    """A reply as lists and dicts: spec, outputs as [dtype, dims, data, bytes_val], errors."""
    spec = reply.servable_spec
    return {
        "spec": [spec.name, spec.method_name, spec.version_number],
        "instances": [
            {
                name: [
                    tensor.dtype,
                    list(tensor.shape.dims),
                    tensor.data.hex(),
                    [content.hex() for content in tensor.bytes_val],
                ]
                for name, tensor in instance.items.items()
            }
            for instance in reply.instances
        ],
        "errors": [[error.error_code, error.error_msg.decode()] for error in reply.error_msg],
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
