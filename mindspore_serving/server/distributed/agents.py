"""`startup_agents`: the ranks of a distributed servable that belong to this machine."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from mindbus.mindspore_check import library_environment
from mindspore_serving.server.devices import TARGETS, available_device_types
from mindspore_serving.server.distributed.start import check_address
from mindspore_serving.server.start_config import absolute_path, check_dec_key, check_dec_mode
from protocol.parameter_checks import check_int, check_str
from workers.backends.mindspore_discovery import ASCEND_ROOT
from workers.distributed.launch_plan import (
    AgentsSettings,
    Entry,
    LaunchPlanError,
    check_files,
    check_together,
)
from workers.distributed.launcher import Launcher

#: The agents of one machine may use as many ports as it has NPUs.
START_PORT_MAX = 65535 - 7


def startup_agents(
    distributed_address: str,
    model_files: Sequence[str | list[str]],
    group_config_files: Sequence[str | list[str]] | None = None,
    agent_start_port: int = 7000,
    agent_ip: str | None = None,
    rank_start: int | None = None,
    dec_key: bytes | None = None,
    dec_mode: str = "AES-GCM",
) -> None:
    """Start one agent for each rank of this machine; return when all of them serve.

    The script may end afterwards: the agents go on until their worker ends, or SIGTERM or SIGINT.
    If one of them, or the worker, dies, all are started again as soon as the worker is.
    distributed_address: `ip:port` of the worker.
    model_files: one entry for each rank of this machine, in the order of ranks; an entry that is a
        list has the subgraphs of one model. Relative paths begin at the directory of the script.
    group_config_files: at most one for each rank, for Ascend.
    agent_start_port: from here on a port is looked for at which the ranks meet.
    agent_ip, rank_start: who this machine is, and its first rank, if the ips of the rank table are
        not those of the machines; both or none.
    dec_key, dec_mode: decrypt the models.
    Raises: RuntimeError.
    """
    address = check_address("distributed_address", distributed_address)
    check_int("agent_start_port", agent_start_port, 1, START_PORT_MAX)
    models = _check_entries("model_files", model_files)
    groups = (
        None
        if group_config_files is None
        else _check_entries("group_config_files", group_config_files)
    )
    backend = os.environ.get("MINDBUS_BACKEND") or "mindspore"
    key = None if dec_key is None else check_dec_key(dec_key)
    mode = check_dec_mode(dec_mode)
    try:
        check_together(agent_ip, rank_start)
        settings = AgentsSettings(
            address=address,
            model_files=_accessible("model", models),
            group_config_files=None if groups is None else _accessible("group config", groups),
            start_port=agent_start_port,
            agent_ip=None if agent_ip is None else check_str("agent_ip", agent_ip),
            rank_start=None if rank_start is None else check_int("rank_start", rank_start, 0),
            device_target=TARGETS[available_device_types()[0]] or "CPU",
            backend=backend,
            dec_key=key,
            dec_mode=mode,
            libraries=library_environment(os.environ, ASCEND_ROOT)
            if backend == "mindspore"
            else {},
        )
        check_files(settings)
        text = _launch(settings)
    except LaunchPlanError as error:
        print(f"Failed to start agents, {error}", flush=True)
        raise RuntimeError(str(error)) from None
    print(f"Success to start agents, {text}", flush=True)


# ---------------------------------------------------------------- parameters


def _check_entries(name: str, value: object) -> tuple[Entry, ...]:
    """A list or tuple with a text, or a list of texts, for each device; one text stands for one."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple):
        raise RuntimeError(
            f"Parameter '{name}' should be str or tuple/list of str, but actually {type(value)}"
        )
    entries: list[Entry] = []
    for item in value:
        entry = tuple(_check_inner(name, text) for text in item) if type(item) is list else item
        if not isinstance(entry, tuple):
            _check_item(name, entry)
        if entry in entries:
            raise RuntimeError(
                f"The item value '{item}' in parameter '{name}' should not be repeated"
            )
        entries.append(entry)
    if not entries:
        raise RuntimeError(f"Parameter '{name}' should not be empty")
    return tuple(entries)


def _check_item(name: str, item: object) -> None:
    if not isinstance(item, str):
        raise RuntimeError(
            f"The item value '{item}' in parameter '{name}' should be str, but actually "
            f"{type(item)}"
        )
    if not item:
        raise RuntimeError(f"The item value '{item}' in parameter '{name}' should not be empty str")


def _check_inner(name: str, text: object) -> str:
    if not isinstance(text, str):
        raise RuntimeError(
            f"The inner of parameter '{name}' should be str, but actually {type(text)}"
        )
    if not text:
        raise RuntimeError(f"The inner of parameter '{name}' should not be empty str")
    return text


def _accessible(kind: str, entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """The same with absolute paths. Raises: RuntimeError for a file that cannot be read."""
    return tuple(
        _accessible_file(kind, entry)
        if isinstance(entry, str)
        else tuple(_accessible_file(kind, file) for file in entry)
        for entry in entries
    )


def _accessible_file(kind: str, file: str) -> str:
    path = str(Path(absolute_path(file)).resolve())
    if not os.access(path, os.R_OK):
        raise RuntimeError(f"Cannot access {kind} file '{path}'")
    return path


# ---------------------------------------------------------------- the process


def _launch(settings: AgentsSettings) -> str:
    """Start the agents; returns what describes them. Raises: LaunchPlanError."""
    launcher = Launcher(settings)
    previous = _take_signals(launcher)
    launcher.start()
    try:
        return launcher.started.result()
    except LaunchPlanError:
        launcher.wait()
        for number, handler in previous.items():
            signal.signal(number, handler)
        raise


def _take_signals(launcher: Launcher) -> dict[int, Any]:
    """End the agents at SIGTERM and SIGINT, where the script has no handlers of its own.

    Then the signal ends the script as it would have. Returns the handlers that were there.
    """
    previous: dict[int, Any] = {}
    if threading.current_thread() is not threading.main_thread():
        return previous

    def on_signal(number: int, _: FrameType | None) -> None:
        launcher.request_stop("Fail to start agents because of Ctrl+C")
        launcher.wait()
        signal.signal(number, previous[number])
        os.kill(os.getpid(), number)

    for number in (signal.SIGTERM, signal.SIGINT):
        handler = signal.getsignal(number)
        if handler in (signal.SIG_DFL, signal.default_int_handler):
            previous[number] = handler
            signal.signal(number, on_signal)
    return previous
