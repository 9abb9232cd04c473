"""What has become of the requests of each method: counts and times, since the broker began.

Only methods that a worker offered are counted, so that names which clients make up cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from protocol import head as heads

if TYPE_CHECKING:
    from broker.service import Request


class MethodStatistics:
    """Totals of one method. Times are in ns, over all requests.

    success_ns: from acceptance to reply; queue_ns of that until the last attempt began. fail_ns:
    the same of requests that failed. instances: of those that succeeded.
    """

    __slots__ = ("fail", "fail_ns", "instances", "queue_ns", "success", "success_ns")

    def __init__(self) -> None:
        self.success = self.success_ns = self.queue_ns = self.instances = 0
        self.fail = self.fail_ns = 0

    def describe(self) -> dict[str, int]:
        """Plain values."""
        return {name: getattr(self, name) for name in self.__slots__}


class Statistics:
    """The methods of one service."""

    __slots__ = ("_methods",)

    def __init__(self) -> None:
        self._methods: dict[bytes, MethodStatistics] = {}

    def know(self, methods: Iterable[bytes]) -> None:
        """Count these methods from now on, besides those that are known."""
        for method in methods:
            self._methods.setdefault(method, MethodStatistics())

    def succeed(self, request: Request, reply: bytes, now_ns: int) -> None:
        """A worker answered. reply: the head, which knows how many instances there were."""
        method = self._methods.get(heads.method_of(request.head))
        if method is not None:
            method.success += 1
            method.success_ns += now_ns - request.since_ns
            method.queue_ns += request.begun_ns - request.since_ns
            at = heads.INSTANCE_COUNT_OFFSET
            method.instances += reply[at] << 8 | reply[at + 1]

    def fail(self, request: Request, now_ns: int) -> None:
        """A request that was accepted failed, whoever said so."""
        method = self._methods.get(heads.method_of(request.head))
        if method is not None:
            method.fail += 1
            method.fail_ns += now_ns - request.since_ns

    def describe(self) -> dict[str, Any]:
        """Plain values by name; hidden methods are left out."""
        return {
            name.decode(errors="backslashreplace"): method.describe()
            for name, method in self._methods.items()
            if not name.startswith(heads.CALL_PREFIX.encode())
        }
