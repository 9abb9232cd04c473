"""MindSpore's collective communication: how a process becomes one rank of a group.

Where the others are is in the environment, put there by who started the process. What was seen
with MindSpore 2.10 on CPU, and is relied on here:

- The ranks find each other through a scheduler, a process of its own (`MS_ROLE=MS_SCHED`), at
  `MS_SCHED_HOST:MS_SCHED_PORT`; a rank that comes early tries again until the scheduler is there.
- With decimal numbers in `MS_NODE_ID` the ranks are these numbers.
- A collective operation whose peer has died waits for ever: only the end of the process helps.
- `AllReduce` is there, `Send` and `Receive` are not.
"""

from __future__ import annotations

from workers.backends.base import BackendError
from workers.backends.mindspore_graph import MINDSPORE_ERRORS

#: The collective library of each device target.
LIBRARIES = {"CPU": "mccl", "GPU": "nccl", "Ascend": "hccl"}


def join_group(target: str) -> None:
    """Meet the other ranks; returns when all are there. REQUIRES: the device is opened.

    Raises: BackendError.
    """
    from mindspore.communication import init

    try:
        init(LIBRARIES[target])
    except MINDSPORE_ERRORS as error:
        raise BackendError(f"the group cannot be joined: {error}") from error


def run_scheduler() -> None:
    """Let the ranks of a group find each other, as long as one of them is there.

    Raises: BackendError.
    """
    import mindspore

    try:
        mindspore.set_device("CPU")
    except MINDSPORE_ERRORS as error:
        raise BackendError(f"the scheduler cannot run: {error}") from error
    join_group("CPU")
