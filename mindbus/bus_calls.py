"""What both bus clients share: arguments into a request, a reply into results or an exception."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mindbus.bus_errors import BusError, error_of
from protocol import head as heads
from protocol import limits, native, status
from protocol.client_session import ClientSettings
from protocol.errors import RemoteProtocolError
from protocol.native import Buffer
from protocol.values import BytesValue, Failure, StringValue, Value

#: Seconds that a call may take if nobody says otherwise.
TIMEOUT_DEFAULT = 30.0

#: The broker ends a call on time; if it is silent the client does, a little later.
SETTINGS = ClientSettings()

Instances = Mapping[str, Any] | Sequence[Mapping[str, Any]]
Outcome = dict[str, Any] | BusError


class Options(NamedTuple):
    """What a call may say beside what it asks for.

    priority: `high`, `normal` or `low`. key: an idempotency key of 1 to 64 bytes, also as text; a
    call that is made again with it is not executed again. is_one_way: there is no reply.
    """

    priority: str = "normal"
    key: str | bytes | None = None
    is_one_way: bool = False


NO_OPTIONS = Options()


def encode_call(
    servable: str,
    method: str,
    instances: Instances,
    version: int,
    timeout: float,
    options: Options = NO_OPTIONS,
) -> tuple[bytes, list[Buffer]]:
    """Head and body frames of a request.

    Raises: TypeError or ValueError naming the argument that is wrong; BodyTooLarge.
    """
    budget_ms = _check_timeout(timeout)
    service = _check_names(servable, method, version)
    listed = _check_instances(instances)
    flags = heads.FLAG_COALESCE | _check_priority(options.priority)
    key = _check_key(options.key)
    frames = native.encode_request(listed)
    body_bytes = sum(map(len, frames))
    if body_bytes > limits.CLIENT_MESSAGE_BYTES_MAX:
        raise error_of(
            "body_too_large",
            f"request body of {body_bytes} B exceeds client_message_bytes_max "
            f"{limits.CLIENT_MESSAGE_BYTES_MAX} B (service {service.decode()})",
        )
    if body_bytes >= limits.TENSOR_INLINE_BYTES_MAX:
        flags |= heads.FLAG_BODY_LARGE
    if options.is_one_way:
        flags |= heads.FLAG_ONE_WAY
    if key is not None:
        if len(frames) == limits.BODY_FRAMES_MAX:
            raise TypeError(f"more than {limits.BODY_FRAMES_MAX - 2} large tensors, with a key")
        flags |= heads.FLAG_KEYED
        frames.append(key)
    head = heads.Head(
        heads.REQUEST,
        flags,
        budget_ms=budget_ms,
        instance_count=len(listed),
        body_frames=len(frames),
        service=service,
        method=method.encode(),
    )
    return heads.pack(head), frames


def encode_stats(timeout: float) -> bytes:
    """The head that asks a broker for its statistics."""
    return heads.pack(heads.Head(heads.STATS, budget_ms=_check_timeout(timeout)))


def _check_timeout(timeout: float) -> int:
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be a number of seconds, not {timeout!r}")
    if not 0 < timeout <= limits.BUDGET_MS_MAX / 1000:
        raise ValueError(
            f"timeout must be above 0 and at most {limits.BUDGET_MS_MAX // 1000} s, not {timeout!r}"
        )
    return max(1, int(timeout * 1000))


def _check_names(servable: str, method: str, version: int) -> bytes:
    for name, value in (("servable", servable), ("method", method)):
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a str, not {value!r}")
        if not value:
            raise ValueError(f"{name} must not be empty")
    if isinstance(version, bool) or not isinstance(version, int):
        raise TypeError(f"version must be an int, not {version!r}")
    if version < 0:
        raise ValueError(f"version must be 0 (the latest) or above, not {version}")
    if len(method.encode()) > limits.METHOD_BYTES_MAX:
        raise ValueError(
            f"method of {len(method.encode())} B exceeds method_bytes_max "
            f"{limits.METHOD_BYTES_MAX}: {method!r}"
        )
    try:
        return heads.service_key(servable, version)
    except RemoteProtocolError as error:
        raise ValueError(f"servable: {error}: {servable!r}") from None


def _check_priority(priority: str) -> int:
    flag = heads.PRIORITIES.get(priority) if isinstance(priority, str) else None
    if flag is None:
        raise ValueError(f"priority must be one of {', '.join(heads.PRIORITIES)}, not {priority!r}")
    return flag


def _check_key(key: str | bytes | None) -> bytes | None:
    if key is None:
        return None
    if not isinstance(key, str | bytes):
        raise TypeError(f"key must be a str or bytes, not {key!r}")
    encoded = key.encode() if isinstance(key, str) else key
    if not 1 <= len(encoded) <= limits.KEY_BYTES_MAX:
        raise ValueError(
            f"key of {len(encoded)} B is not of 1 to key_bytes_max {limits.KEY_BYTES_MAX} B"
        )
    return encoded


def _check_instances(instances: Instances) -> Sequence[Mapping[str, Any]]:
    if isinstance(instances, Mapping):
        instances = [instances]
    if not isinstance(instances, list | tuple):
        raise TypeError(
            f"instances must be a dict, or a list or tuple of dicts, not {type(instances)}"
        )
    if not instances:
        raise ValueError("instances must not be empty")
    for index, instance in enumerate(instances):
        if not isinstance(instance, Mapping):
            raise TypeError(f"instance {index} must be a dict, not {instance!r:.100}")
        for name in instance:
            if not isinstance(name, str):
                raise TypeError(f"instance {index}: input name must be a str, not {name!r}")
    return instances


# ---------------------------------------------------------------- replies


def decode_results(
    head: bytes, frames: Sequence[Buffer], return_errors: bool
) -> list[dict[str, Any]]:
    """The results of a call, one dict of outputs per instance.

    return_errors: put the BusError of an instance that failed into its place, instead of raising.
    Raises: BusError; its `results` say what became of each instance if only some failed.
    """
    _raise_if_failed(head, frames)
    try:
        decoded = native.decode_reply(frames)
    except RemoteProtocolError as error:
        raise error_of("failed", f"the reply is unreadable: {error}") from None
    outcomes: list[Any] = [_outcome(one) for one in decoded]
    first = next((one for one in outcomes if isinstance(one, BusError)), None)
    if first is not None and not return_errors:
        failed = sum(isinstance(one, BusError) for one in outcomes)
        message = str(first)
        if len(outcomes) > 1:
            message += f" ({failed} of {len(outcomes)} instances failed)"
        raise error_of(first.reason, message, outcomes)
    return outcomes


def decode_sent(head: bytes, frames: Sequence[Buffer]) -> None:
    """A request without a reply has left. Raises: BusError if it could not."""
    _raise_if_failed(head, frames)


def decode_stats(head: bytes, frames: Sequence[Buffer]) -> dict[str, Any]:
    """The statistics of a broker. Raises: BusError."""
    if head[3] != heads.STATS:
        _raise_if_failed(head, frames)
    try:
        return native.unpack_meta(frames[0] if frames else b"")
    except RemoteProtocolError as error:
        raise error_of("failed", f"the reply is unreadable: {error}") from None


def _raise_if_failed(head: bytes, frames: Sequence[Buffer]) -> None:
    if not head[heads.STATUS_OFFSET]:
        return
    try:
        failure = native.decode_failure(frames)
    except RemoteProtocolError as error:
        raise error_of("failed", f"the failure in the reply is unreadable: {error}") from None
    raise error_of(failure.reason, failure.message)


def _outcome(result: dict[str, Value] | Failure) -> Outcome:
    if isinstance(result, Failure):
        reason = status.REASON_OF_MINDSPORE_CODE.get(result.code, "failed")
        return error_of(reason, result.message)
    return {name: _plain(value) for name, value in result.items()}


def _plain(value: Value) -> Any:
    if isinstance(value, StringValue):
        return value.text
    if isinstance(value, BytesValue):
        return bytes(value.content)
    return value
