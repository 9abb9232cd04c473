"""A model that device workers have loaded, as an extra worker sees it.

Its instances travel over the bus as requests of the model's hidden method: those of one request of
a client together, those of several requests each for itself. For what travels together dies
together: an instance that kills device workers is computed alone the second time only if it came
alone. The device worker gathers what comes into batches, with what everybody else sends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from protocol import head as heads
from protocol import limits, native, serving_texts, status
from protocol.client_session import Completion
from protocol.errors import RemoteProtocolError
from protocol.native import Buffer
from protocol.values import Failure, Instance, Result
from workers.servable.call_methods import call_method_name, input_names, output_names
from workers.servable.declarations import ModelDeclaration
from workers.stages.checked_model import CheckedModel, ModelDescription
from workers.stages.stage_values import byte_count

#: Bytes of the values in one request, unless a single instance has more: several requests can be
#: on several devices at once, and none comes near the largest body.
REQUEST_BYTES_MAX = 64 * limits.MIB

#: A request that is about to leave: its method, its body frames, how many instances it has.
Call = tuple[str, list[Buffer], int]

#: Sends calls, all at once, with a deadline; returns how each of them ended.
Send = Callable[[Sequence[Call], int], Sequence[Completion]]


class RemoteModel(CheckedModel):
    """A model that is computed by the device workers of the same service.

    Raises: RuntimeError as `CheckedModel`, and if the model's key is too long for a method's name.
    """

    def __init__(
        self, declaration: ModelDeclaration, description: ModelDescription, send: Send
    ) -> None:
        inputs, outputs, batch_sizes = description
        super().__init__(declaration, inputs, outputs, batch_sizes)
        self._send = send
        longest = call_method_name(declaration.key, self.subgraphs_count - 1)
        if len(longest.encode()) > limits.METHOD_BYTES_MAX:
            raise RuntimeError(
                f"extra workers cannot call model {declaration.key}: method name of "
                f"{len(longest.encode())} B exceeds method_bytes_max {limits.METHOD_BYTES_MAX}"
            )

    def run(
        self,
        subgraph: int,
        instances: Sequence[Instance],
        deadline_ns: int,
        is_mixed: bool = False,
    ) -> list[Result]:
        """Have a subgraph run on any number of instances; see `CheckedModel.run`."""
        results: list[Result | None] = [self.check(subgraph, instance) for instance in instances]
        good = [index for index, failure in enumerate(results) if failure is None]
        sent = [instances[index] for index in good]
        parts = [[instance] for instance in sent] if is_mixed else list(_parts(sent))
        method = call_method_name(self.declaration.key, subgraph)
        calls = [(method, _encode(part), len(part)) for part in parts]
        outcomes: list[Result] = []
        self.on_wait(True)
        try:
            completions = self._send(calls, deadline_ns)
        finally:
            self.on_wait(False)
        for part, completion in zip(parts, completions, strict=True):
            outcomes += _outcomes(completion, len(part), self._outputs_counts[subgraph])
        for index, outcome in zip(good, outcomes, strict=True):
            results[index] = outcome
        return [result for result in results if result is not None]


def _parts(instances: Sequence[Instance]) -> Iterator[list[Instance]]:
    """Split instances so that each part fits into one request."""
    part: list[Instance] = []
    size = 0
    for instance in instances:
        instance_bytes = sum(map(byte_count, instance))
        frames = (len(part) + 1) * len(instance)
        if part and (size + instance_bytes > REQUEST_BYTES_MAX or frames >= limits.BODY_FRAMES_MAX):
            yield part
            part, size = [], 0
        part.append(instance)
        size += instance_bytes
    if part:
        yield part


def _encode(instances: Sequence[Instance]) -> list[Buffer]:
    names = input_names(len(instances[0]))
    return native.encode_request(
        [dict(zip(names, instance, strict=True)) for instance in instances]
    )


def _outcomes(completion: Completion, count: int, outputs_count: int) -> list[Result]:
    """One result per instance of a call that has ended."""
    _, head, frames = completion
    try:
        if head[heads.STATUS_OFFSET] != status.OK:
            error = native.decode_failure(frames)
            return [_failure(error.reason, error.message)] * count
        replies = native.decode_reply(frames)
        if len(replies) != count:
            raise RemoteProtocolError(f"{len(replies)} results for {count} instances")
        names = output_names(outputs_count)
        return [
            reply if isinstance(reply, Failure) else tuple(reply[name] for name in names)
            for reply in replies
        ]
    except (RemoteProtocolError, KeyError) as error:
        return [_failure("malformed", str(error))] * count


def _failure(reason: str, message: str) -> Failure:
    if reason in ("no_worker", "unknown_service"):
        return Failure(status.MS_FAILED, serving_texts.NO_DEVICE_WORKER)
    return Failure(status.MS_FAILED, serving_texts.remote_call_failed(message))
