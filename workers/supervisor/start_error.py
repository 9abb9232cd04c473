"""Why a server could not start, in MindSpore Serving's words where it has some."""

from __future__ import annotations

import errno
import signal

from workers.supervisor.child import ChildSpec
from workers.supervisor.stop_policy import WORKER

#: A worker that is gone without a word.
DEATH_TEXT = "Fail to start workers because of death of one worker"
#: Descriptors or processes ran out.
TOO_MANY_TEXT = "Maybe the parameter 'num_parallel_workers' is too large"
#: Somebody stopped the server while it started.
SIGNAL_TEXT = "Fail to start workers because of signal SIGINT or SIGTERM"


class StartError(RuntimeError):
    """The server, a worker or a door could not start; the text is one line for the user."""


def worker_failure_text(servable: str, device: int | None, error: str) -> str:
    """A device worker reported why it cannot serve."""
    return f"Fail to start workers: {{servable name:{servable}, device id:{device}, <{error}>}}"


def extra_worker_failure_text(servable: str, version: int, extra: int, error: str) -> str:
    """An extra worker reported why it cannot serve."""
    return (
        f"Fail to start workers: {{servable:{servable}, version:{version}, extra:{extra}, "
        f"<{error}>}}"
    )


def group_failure_text(servable: str, error: str) -> str:
    """The worker of a distributed servable reported why it cannot serve."""
    return f"Fail to start workers: {{distributed servable:{servable}, {error}}}"


def worker_death_text(slot: str, exit_text: str) -> str:
    """A worker died during its start and said nothing."""
    return f"{DEATH_TEXT} ({slot}: {exit_text})"


def spawn_failure_text(spec: ChildSpec, error: OSError) -> str:
    """The system refused a process, or what one needs."""
    text = f"cannot spawn {spec.slot}: {error}"
    if spec.kind == WORKER and error.errno in (errno.EMFILE, errno.ENFILE, errno.EAGAIN):
        return f"{TOO_MANY_TEXT}, {text}"
    return text


def exit_text(returncode: int) -> str:
    """How a process ended. returncode: as of `subprocess`, negative for a signal."""
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"


def start_failure_text(spec: ChildSpec, error: str | None, last_exit: str | None) -> str:
    """Why a first start failed. error: what the child said itself, which is worth more."""
    if error is not None and error.startswith(TOO_MANY_TEXT):
        return error
    if spec.kind != WORKER:
        return f"Fail to start {spec.slot}: {error or last_exit}"
    if error is not None and spec.extra is not None:
        return extra_worker_failure_text(spec.servable, spec.version, spec.extra, error)
    if error is not None and spec.is_distributed:
        return group_failure_text(spec.servable, error)
    if error is not None:
        return worker_failure_text(spec.servable, spec.device, error)
    return worker_death_text(spec.slot, last_exit or "no exit yet")
