"""What takes long, computed beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


async def off_loop(function: Callable[..., T], *arguments: object) -> T:
    """Call a function in a thread of its own, and wait for what it returns or raises.

    `asyncio.to_thread` does not do: its threads are taken from it when the main thread ends, and a
    start script that serves in its own process ends it right after the start.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(function(*arguments))
        except BaseException as error:  # it belongs to the caller
            outcome.set_exception(error)

    threading.Thread(target=run, name="off-loop", daemon=True).start()
    return await asyncio.wrap_future(outcome)
