"""Compiles the protocol files that MindBus loads into a pool of its own.

`python -m docs.generate_messages` writes protocol/descriptors_pb2.py. Needs grpcio-tools.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("protocol/health.proto", "protocol/oip.proto", "protocol/reflection.proto")
TARGET = ROOT / "protocol" / "descriptors_pb2.py"

HEADING = '"""Serialized protocol files. Made by `python -m docs.generate_messages`."""\n\n'


def generated() -> str:
    """The text of the module: one constant per protocol file."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "descriptors"
        command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={ROOT}"]
        subprocess.run([*command, f"--descriptor_set_out={out}", *SOURCES], check=True, cwd=ROOT)
        files = FileDescriptorSet.FromString(out.read_bytes()).file
    constants = [
        f"{Path(file.name).stem.upper()} = {file.SerializeToString(deterministic=True)!r}\n"
        for file in sorted(files, key=lambda file: str(file.name))
    ]
    return HEADING + "".join(constants)


if __name__ == "__main__":
    TARGET.write_text(generated())
