"""Requests that killed as many workers as they had attempts: refused for a while. Pure.

The same bytes would do it again, and each time two devices are away for as long as a worker starts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from broker.service import Frame
from protocol import head as heads
from protocol import limits

NS_PER_MS = 1_000_000


class Quarantine:
    """Fingerprints of requests, each until its time is over; the oldest go when there are many."""

    def __init__(self, period_ms: int, attempts_max: int = limits.ATTEMPTS_MAX) -> None:
        self._period_ns = period_ms * NS_PER_MS
        self._attempts_max = attempts_max
        #: fingerprint -> until when; in the order of their ends
        self._until_ns: dict[bytes, int] = {}

    def __bool__(self) -> bool:
        return bool(self._until_ns)

    def add(self, service_key: bytes, head: bytes, frames: Sequence[Frame], now_ns: int) -> None:
        """Refuse requests with the same service, method and body from now on."""
        if not self._period_ns:
            return
        fingerprint = _fingerprint(service_key, head, frames)
        self._until_ns.pop(fingerprint, None)
        self._until_ns[fingerprint] = now_ns + self._period_ns
        while len(self._until_ns) > limits.QUARANTINED_MAX:
            del self._until_ns[next(iter(self._until_ns))]

    def refusal(
        self, service_key: bytes, head: bytes, frames: Sequence[Frame], now_ns: int
    ) -> str | None:
        """Why such a request is refused, None if it is not."""
        wait_ms = self.refused_for_ms(service_key, head, frames, now_ns)
        if not wait_ms:
            return None
        return (
            f"the same request killed {self._attempts_max} workers of "
            f"{service_key.decode()} lately; it is refused for {wait_ms} ms more"
        )

    def refused_for_ms(
        self, service_key: bytes, head: bytes, frames: Sequence[Frame], now_ns: int
    ) -> int:
        """For how long such a request is refused yet; 0 = it is not."""
        self._expire(now_ns)
        if not self._until_ns:
            return 0
        until_ns = self._until_ns.get(_fingerprint(service_key, head, frames), now_ns)
        return -(-(until_ns - now_ns) // NS_PER_MS)

    def _expire(self, now_ns: int) -> None:
        while self._until_ns:
            first = next(iter(self._until_ns))
            if self._until_ns[first] > now_ns:
                return
            del self._until_ns[first]


def _fingerprint(service_key: bytes, head: bytes, frames: Sequence[Frame]) -> bytes:
    """The service that computes it, its method, its dialect and its body."""
    digest = hashlib.blake2b(digest_size=16)
    method = heads.method_of(head)
    for part in (service_key, method, bytes((head[heads.DIALECT_OFFSET],))):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    for frame in frames:
        digest.update(len(frame).to_bytes(8, "big"))
        digest.update(frame if isinstance(frame, bytes | memoryview) else frame.buffer)
    return digest.digest()
