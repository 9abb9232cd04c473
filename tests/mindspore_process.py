"""A process that imports MindSpore, so that the process of the tests need not."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

#: MindSpore's import takes some seconds, and training the digits half a minute.
CALL_SECONDS_MAX = 180


class MindSporeProcess:
    """Runs functions of test modules, one after another, in one process of its own.

    It works in a temporary directory, because MindSpore leaves notes of failures where it runs.
    """

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="mindspore-")
        self._pool = ProcessPoolExecutor(
            max_workers=1,
            mp_context=get_context("spawn"),
            initializer=os.chdir,
            initargs=(self._directory.name,),
        )

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function by its importable name; what it returns or raises comes back."""
        return self._pool.submit(function, *arguments).result(CALL_SECONDS_MAX)

    def __enter__(self) -> MindSporeProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._directory.cleanup()
