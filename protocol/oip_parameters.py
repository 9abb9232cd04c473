"""Parameters of requests and tensors in the Open Inference Protocol: which mean something here.

    request   timeout (µs)            the budget, if it is less than the deadline's
              binary_data_output      REST: every output is binary unless it says otherwise
              content_type            what BYTES inputs become: "bytes", "str" (text), or
                                      "base64" (bytes that are written so)
              priority                1 = before others that wait, 2 or 0 = as most, 3 and more =
                                      behind them
              triton_enable_empty_final_response
                                      answered with `triton_final_response`: each request has
                                      one response, which is the final one
    input     content_type, binary_data_size (REST)
    output    binary_data, content_type "base64" (REST)

What asks for something that does not exist here (sequences, shared memory, classification) is
refused, for the result would be another one than was asked for. Other names are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from protocol import head as heads
from protocol import limits
from protocol.errors import RequestError
from protocol.oip_results import check_outputs
from protocol.oip_tensor import CONTENT_BASE64, CONTENT_BYTES, CONTENT_TYPES
from protocol.values import MethodSignature

#: By name; a JSON client may send values of any kind.
Parameters = Mapping[str, object]

US_PER_MS = 1_000

_SHARED_MEMORY = "shared_memory_region"


class RequestParameters(NamedTuple):
    """The parameters of a request that mean something.

    timeout_us: 0 = none. content_type: of inputs that do not say one. priority_flag: of the head.
    """

    timeout_us: int = 0
    is_binary: bool = False
    content_type: str = CONTENT_BYTES
    wants_final: bool = False
    priority_flag: int = 0

    @property
    def timeout_ms(self) -> int:
        """The timeout as a budget, at least 1 ms; 0 = none."""
        if not self.timeout_us:
            return 0
        return min(max(1, self.timeout_us // US_PER_MS), limits.BUDGET_MS_MAX)

    @classmethod
    def read(cls, parameters: Parameters) -> RequestParameters:
        """Read a request's parameters. Raises RequestError (invalid_inputs, unsupported)."""
        if not parameters:
            return _NONE
        if parameters.get("sequence_id"):
            raise RequestError(
                "unsupported",
                f"parameter sequence_id {parameters['sequence_id']!r}: models here have no state "
                "between requests",
            )
        return cls(
            _timeout_us(parameters.get("timeout", 0)),
            parameters.get("binary_data_output") is True,
            _content_type(parameters, CONTENT_BYTES),
            parameters.get("triton_enable_empty_final_response") is True,
            _priority_flag(parameters.get("priority", 0)),
        )

    def content_type_of(self, name: str, parameters: Parameters) -> str:
        """What the elements of an input become. Raises RequestError."""
        if not parameters:
            return self.content_type
        if _SHARED_MEMORY in parameters:
            raise _no_shared_memory("input", name)
        return _content_type(parameters, self.content_type)


_NONE = RequestParameters()


class Echo(NamedTuple):
    """What a reply needs to know of its request.

    model: as the client named it. outputs: which ones, in this order; None = all.
    is_stacked: tensors have a batch dimension. binary, base64: outputs that are so (REST).
    """

    model: str
    id: str
    outputs: tuple[str, ...] | None
    is_stacked: bool = True
    binary: frozenset[str] = frozenset()
    base64: frozenset[str] = frozenset()
    wants_final: bool = False

    @property
    def reply_parameters(self) -> Mapping[str, bool]:
        """The parameters of the reply."""
        return {"triton_final_response": True} if self.wants_final else {}


def echo_of(
    method: MethodSignature,
    model: str,
    request_id: str,
    parameters: RequestParameters,
    outputs: Sequence[tuple[str, Parameters]],
) -> Echo:
    """What the reply needs to know. outputs: name and parameters of those that are asked for.

    Raises: RequestError (invalid_inputs, unsupported).
    """
    for name, asked in outputs:
        if _SHARED_MEMORY in asked:
            raise _no_shared_memory("output", name)
        if asked.get("classification"):
            raise RequestError(
                "unsupported", f"output {name!r}: parameter classification is not supported"
            )
    names = tuple(name for name, _ in outputs)
    check_outputs(method, names)
    if len(set(names)) != len(names):
        raise RequestError("invalid_inputs", f"an output is asked for twice: {', '.join(names)}")
    if names:
        binary = frozenset(
            name for name, asked in outputs if asked.get("binary_data", parameters.is_binary)
        )
    else:
        binary = frozenset(method.outputs) if parameters.is_binary else frozenset()
    base64 = frozenset(
        name for name, asked in outputs if asked.get("content_type") == CONTENT_BASE64
    )
    return Echo(model, request_id, names or None, True, binary, base64, parameters.wants_final)


def _timeout_us(value: object) -> int:
    return _whole_number("timeout", value, "a number of microseconds")


def _priority_flag(value: object) -> int:
    """Triton counts levels from 1, the most urgent one, and has 0 stand for the model's default."""
    level = _whole_number("priority", value, "a level: 1 (high), 2 or 0 (normal), 3 or more (low)")
    return heads.PRIORITIES[("normal", "high", "normal", "low")[min(level, 3)]]


def _whole_number(name: str, value: object, meaning: str) -> int:
    """A number that clients send as a number or, where it is large, as a text."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 20:
        value = int(value)
    if type(value) is not int or value < 0:
        raise RequestError("invalid_inputs", f"parameter {name} {value!r:.40} is not {meaning}")
    return value


def _content_type(parameters: Parameters, default: str) -> str:
    # Other words are those of other servers' codecs ("np", "pd"): numbers need none here.
    value = parameters.get("content_type")
    return value if value in CONTENT_TYPES and isinstance(value, str) else default


def _no_shared_memory(kind: str, name: str) -> RequestError:
    return RequestError("unsupported", f"{kind} {name!r}: shared memory is not supported")
