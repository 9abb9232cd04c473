"""Who may come in: limits of requests and bytes, also while the broker drains."""

from __future__ import annotations

from dataclasses import dataclass, replace

from broker.service import Service
from protocol import head as heads
from protocol import limits

CALL_PREFIX = heads.CALL_PREFIX.encode()


@dataclass(frozen=True)
class Settings:
    """Limits of a broker; the defaults and their sources are in `protocol.limits`."""

    requests_max: int = limits.REQUESTS_MAX_DEFAULT
    request_bytes_max: int = limits.REQUEST_BYTES_MAX_DEFAULT
    body_bytes_max: int = limits.BODY_BYTES_MAX
    budget_ms_default: int = limits.BUDGET_MS_DEFAULT
    attempts_max: int = limits.ATTEMPTS_MAX
    heartbeat_interval_ms: int = limits.HEARTBEAT_INTERVAL_MS
    heartbeat_liveness: int = limits.HEARTBEAT_LIVENESS
    service_grace_ms: int = limits.SERVICE_GRACE_MS
    quarantine_ms: int = limits.QUARANTINE_MS
    ready_ms: int = limits.READY_MS


class Admission:
    """What a broker holds, against its limits.

    Model calls of extra workers belong to requests that were accepted before: they are taken out of
    a reserve beyond `requests_max`, and while the broker drains. Clients may call models as well;
    the reserve is for all of them together.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        #: Requests and body bytes that are held.
        self.requests = 0
        self.request_bytes = 0
        self.is_draining = False

    def refusal(self, head: bytes, body_bytes: int, service: Service) -> tuple[str, str] | None:
        """Reason and message if the request cannot be taken."""
        settings = self.settings
        if (self.is_draining or self.requests >= settings.requests_max) and not self._calls(head):
            if self.is_draining:
                return "draining", "the broker is going down"
            limit = settings.requests_max
            return "queue_full", f"enqueued requests count exceeds the limit {limit}"
        if body_bytes > settings.body_bytes_max:
            key, limit = service.key.decode(), settings.body_bytes_max
            return (
                "body_too_large",
                f"body of {body_bytes} B exceeds body_bytes_max {limit} (service {key})",
            )
        if self.request_bytes + body_bytes > settings.request_bytes_max:
            held, limit = self.request_bytes, settings.request_bytes_max
            text = f"body of {body_bytes} B and the {held} B that are held exceed"
            return "queue_bytes_full", f"{text} request_bytes_max {limit}"
        return None

    def take(self, body_bytes: int) -> None:
        """A request is held from now on."""
        self.requests += 1
        self.request_bytes += body_bytes

    def release(self, body_bytes: int) -> None:
        """A request is held no longer."""
        self.requests -= 1
        self.request_bytes -= body_bytes

    def set_requests_max(self, requests_max: int) -> None:
        """Change the limit of requests while running."""
        self.settings = replace(self.settings, requests_max=requests_max)

    def _calls(self, head: bytes) -> bool:
        """It is a model call, and the reserve is not used up."""
        in_reserve = self.requests < self.settings.requests_max + limits.CALLS_RESERVE
        return in_reserve and heads.method_of(head).startswith(CALL_PREFIX)
