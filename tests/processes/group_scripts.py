"""A distributed servable as a user starts it: one script for the server, one for the agents."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from mindspore_serving.client import Client
from tests.mindspore_serving.start_script import StartScript, free_port, post
from tests.processes.waiting import DEADLINE_S, descendants, wait_until

SERVER = """
from mindspore_serving import server
from mindspore_serving.server import distributed

distributed.start_servable("{directory}", "{name}", rank_table_json_file="rank_table.json",
                           version_number={version}, distributed_address="127.0.0.1:{port}",
                           wait_agents_time_in_seconds={wait_s})
server.start_restful_server("127.0.0.1:{rest}")
server.start_grpc_server("127.0.0.1:{grpc}")
"""

#: Core files are as large as they are allowed to be: who holds a key must leave none.
AGENTS = """
import resource
from mindspore_serving.server import distributed

hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
distributed.startup_agents(distributed_address="127.0.0.1:{port}", model_files={files},
                           agent_start_port={agents_port}, dec_key={dec_key!r}, **{more!r})
"""

CONFIG = """
from mindspore_serving.server import distributed, register

model = distributed.declare_servable(
    rank_size={ranks}, stage_size={stages}, enable_pipeline_infer={is_pipelined}
)


@register.register_method(output_names=["y"])
def predict(x):
    return register.add_stage(model, x, outputs_count=1)
"""

GRPC_LINE = "Serving: Serving gRPC server start success"
AGENTS_LINE = "Success to start agents, distributed worker_address: 127.0.0.1:"


class GroupScripts:
    """Both scripts, in directories of their own. A context manager; nothing runs before `start`.

    name: of the servable below `directory`, for which a rank table is written here.
    """

    def __init__(self, name: str, ranks: int, backend: str, deadline_s: float = DEADLINE_S) -> None:
        self.directory = Path(tempfile.mkdtemp(dir="/tmp", prefix="mb-"))
        self.name = name
        self.ranks = ranks
        self.port, self.grpc_port, self.rest_port = free_port(), free_port(), free_port()
        self.version = 1
        self.dec_key: bytes | None = None
        #: More parameters of `startup_agents`.
        self.more: dict[str, Any] = {}
        self.server: StartScript | None = None
        self.agents: StartScript | None = None
        self._backend = backend
        self._deadline_s = deadline_s
        (self.directory / "agents").mkdir()
        self.write_rank_table("127.0.0.1")

    def write_rank_table(self, ip: str) -> None:
        """All ranks on one machine."""
        devices = [{"device_id": str(rank), "rank_id": str(rank)} for rank in range(self.ranks)]
        table = {"server_list": [{"server_id": ip, "device": devices}]}
        (self.directory / "rank_table.json").write_text(json.dumps(table))

    def write_servable(self, stages: int = 1, is_pipelined: bool = False) -> None:
        """A servable whose one method is the model."""
        servable = self.directory / self.name
        servable.mkdir()
        text = CONFIG.format(ranks=self.ranks, stages=stages, is_pipelined=is_pipelined)
        (servable / "servable_config.py").write_text(text)

    def write_scripted_models(self, **script: Any) -> list[str]:
        """A model for each rank of the numpy backend: rank r multiplies by r + 1."""
        tensor = {"dtype": "float32", "shape": [1, 2]}
        files = []
        for rank in range(self.ranks):
            model = {
                "inputs": [{"name": "x", **tensor}],
                "outputs": [{"name": "y", **tensor}],
                "op": "scale",
                "factor": rank + 1,
                **script,
            }
            path = self.directory / "agents" / f"rank{rank}.json"
            path.write_text(json.dumps(model))
            files.append(path.name)
        return files

    def start_server(self, wait_s: int = 0) -> StartScript:
        """Start the first script; it waits for the agents."""
        source = SERVER.format(
            directory=self.directory,
            name=self.name,
            port=self.port,
            grpc=self.grpc_port,
            rest=self.rest_port,
            wait_s=wait_s,
            version=self.version,
        )
        self.server = StartScript(self.directory, source, self._backend)
        return self.server

    def start_agents(self, files: Sequence[str]) -> StartScript:
        """Start the second script."""
        source = AGENTS.format(
            port=self.port,
            files=list(files),
            agents_port=free_port(),
            dec_key=self.dec_key,
            more=self.more,
        )
        self.agents = StartScript(self.directory / "agents", source, self._backend)
        return self.agents

    def start(self, files: Sequence[str]) -> None:
        """Start both and wait until the door is open."""
        server, agents = self.start_server(), self.start_agents(files)
        server.wait_for(GRPC_LINE, self._deadline_s)
        agents.wait_for(AGENTS_LINE, self._deadline_s)

    def infer(self, instances: Sequence[dict[str, Any]]) -> Any:
        """Call the method through the gRPC door."""
        with Client(f"127.0.0.1:{self.grpc_port}", self.name, "predict") as client:
            return client.infer(list(instances))

    def error(self, door: str, x: list[float]) -> str:
        """The error text of a request of one instance. door: "gRPC" or "REST"."""
        if door == "gRPC":
            answer = self.infer([{"x": np.array(x, np.float32)}])
            return str(answer["error"])
        body = {"instances": [{"x": x}]}
        return str(post(self.rest_port, f"/model/{self.name}:predict", body)["error_msg"])

    # ------------------------------------------------------------ processes

    def agent_pids(self) -> dict[int, int]:
        """The process of each rank now, by rank."""
        assert self.agents is not None
        found = {}
        for pid in descendants(self.agents.process.pid):
            rank = environment(pid).get("RANK_ID")
            if rank is not None and "workers.distributed" in command_line(pid):
                found[int(rank)] = pid
        return found

    def wait_agents(self, before: dict[int, int]) -> dict[int, int]:
        """Wait until every rank has another process than before."""

        def renewed() -> dict[int, int] | None:
            now = self.agent_pids()
            is_new = len(now) == self.ranks and not set(now.values()) & set(before.values())
            return now if is_new else None

        found = wait_until(renewed, self._deadline_s)
        assert found is not None
        return found

    def worker_pid(self) -> int:
        """The worker's process."""
        assert self.server is not None
        (pid,) = (
            pid
            for pid in descendants(self.server.process.pid)
            if command_line(pid).endswith("-m workers")
        )
        return pid

    # ------------------------------------------------------------ the end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for script in (self.server, self.agents):
            if script is not None:
                script.__exit__()
        shutil.rmtree(self.directory, ignore_errors=True)


def command_line(pid: int) -> str:
    """The words of a process's command; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def environment(pid: int) -> dict[str, str]:
    """The variables that a process was started with; none if it has ended."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)
