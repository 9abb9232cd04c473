"""What the broker knows of servables, as the Open Inference Protocol names it. Pure.

A *model* is a method of a servable: `servable` alone is its default method, the first that it
declares, `servable.method` any of them. A servable whose own name is the whole name comes first,
else the last dot divides. A *version* is a number, a label (`stable`, `canary`), or nothing (or 0),
which is what requests without a version get.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from protocol import head as heads
from protocol import method_tensors
from protocol.errors import RequestError
from protocol.oip_tensor import DATATYPES
from protocol.values import InstanceSpec, MethodTensors, RequestSpec

PLATFORM = "mindspore"

#: What is announced of a tensor that a Python stage takes or gives.
UNKNOWN_DATATYPE = ""

#: Versions are numbers of at most so many digits.
_VERSION_DIGITS_MAX = 19


class Tensor(NamedTuple):
    """An input or output, as clients see it: with batch dimension."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Method(NamedTuple):
    """A method of one version of a servable."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: MethodTensors

    def input_tensors(self) -> list[Tensor]:
        """The inputs, as clients send them."""
        return _tensors(self.inputs, self.tensors.inputs, self.tensors.is_batched)

    def output_tensors(self) -> list[Tensor]:
        """The outputs, as clients get them."""
        return _tensors(self.outputs, self.tensors.outputs, self.tensors.is_batched)


class Version(NamedTuple):
    """One version of a servable. not_ready: why it is not; None if it is.

    statistics: of its methods by name, as the broker counts them (`broker.book`), and `executions`:
    runs of the first stage, as workers said in their last heartbeats.
    """

    number: int
    methods: tuple[Method, ...]
    not_ready: str | None
    statistics: Mapping[str, Mapping[str, int]] = {}


class Servable(NamedTuple):
    """A servable. default: the version of requests that name none."""

    name: str
    default: int
    labels: Mapping[str, int]
    versions: Mapping[int, Version]

    def version(self, text: str) -> Version:
        """The version that a client names. Raises RequestError (unknown_service)."""
        number = _number(self.name, text)
        if number == 0:
            number = self.labels.get(text, self.default) if text in heads.LABELS else self.default
        found = self.versions.get(number)
        if found is None:
            raise RequestError("unknown_service", f"servable {self.name} has no version {text}")
        return found


class Models(NamedTuple):
    """Every servable that the broker knows."""

    servables: Mapping[str, Servable]

    @classmethod
    def of_stats(cls, stats: Mapping[str, Any], before: Models | None = None) -> Models:
        """Read the broker's answer to STATS. Raises KeyError, TypeError or ValueError.

        before: the answer before; a version whose workers are all away has the methods that they
        had, so that requests wait for the next worker.
        """
        methods: dict[str, tuple[Method, ...]] = {}
        for worker in stats["workers"]:
            # Extra workers offer some of the methods only.
            if "methods" in worker and (not worker["is_extra"] or worker["service"] not in methods):
                methods[worker["service"]] = _methods(worker)
        executions: dict[str, dict[str, int]] = {}
        for key, name, labels, _, counts, _ in stats["book"]["workers"]:
            if name == "executions":
                executions.setdefault(key, {})[dict(labels)["method"]] = counts[0]
        versions: dict[str, dict[int, Version]] = {}
        for service in stats["services"]:
            key, number = service["service"], service["version"]
            known = methods.get(key) or _methods_before(before, service["servable"], number)
            runs = executions.get(key, {})
            counted = {
                name: {**counts, "executions": runs.get(name, 0)}
                for name, counts in service["methods"].items()
            }
            version = Version(number, known, service["not_ready"], counted)
            versions.setdefault(service["servable"], {})[number] = version
        return cls(
            {
                each["servable"]: Servable(
                    each["servable"],
                    each["version"],
                    each["labels"],
                    versions.get(each["servable"], {}),
                )
                for each in stats["servables"]
            }
        )

    def names(self) -> list[str]:
        """Every model by its longer name, `servable.method`."""
        return [
            f"{servable.name}.{method.name}"
            for servable in self.servables.values()
            if servable.default in servable.versions
            for method in servable.versions[servable.default].methods
        ]

    def resolve(self, model: str) -> tuple[Servable, str] | None:
        """A servable, and the method's name ("" = the default one); None if there is none."""
        servable = self.servables.get(model)
        if servable is not None:
            return servable, ""
        name, dot, method = model.rpartition(".")
        servable = self.servables.get(name) if dot and method else None
        return None if servable is None else (servable, method)

    def find(self, model: str) -> tuple[Servable, str]:
        """As `resolve`. Raises RequestError (unknown_service)."""
        found = self.resolve(model)
        if found is None:
            raise RequestError("unknown_service", f"model {model!r:.300} is not served")
        return found

    def version_of(self, model: str, version: str) -> tuple[Version, Method]:
        """A version of a model, and its method. Raises RequestError."""
        servable, method_name = self.find(model)
        found = servable.version(version)
        for method in found.methods:
            if method.name == method_name or not method_name:
                return found, method
        if not found.methods:
            raise RequestError("no_worker", found.not_ready or f"{model} has no worker")
        names = ", ".join(method.name for method in found.methods)
        raise RequestError(
            "unknown_method",
            f"servable {servable.name} has no method {method_name!r:.300}, only {names}",
        )

    def counted(self, model: str, version: str) -> list[tuple[str, int, Mapping[str, int]]]:
        """Name, version and counts of each method; one model's, or with "" those of all.

        version: "" = every one. Raises: RequestError.
        """
        if model:
            servable, name = self.find(model)
            wanted = name or self.version_of(model, version)[1].name
            servables = [servable]
        else:
            servables, wanted = list(self.servables.values()), ""
        found = []
        for servable in servables:
            numbers = [servable.version(version).number] if version else sorted(servable.versions)
            for number in numbers:
                for name, counts in servable.versions[number].statistics.items():
                    if wanted in ("", name):
                        found.append((model or f"{servable.name}.{name}", number, counts))
        return found

    def spec(self, model: str, version: str) -> RequestSpec:
        """What to ask the bus for. Raises RequestError (unknown_service, no_worker).

        The method's name is not checked unless it is the default one: its worker knows.
        """
        servable, method = self.find(model)
        number = _number(servable.name, version)
        if not method:
            _, described = self.version_of(model, _number_or_default(servable, version))
            method = described.name
        if version in heads.LABELS:
            return RequestSpec(f"{servable.name}/{version}", method, 0)
        return RequestSpec(servable.name, method, number)


def _methods_before(before: Models | None, servable: str, number: int) -> tuple[Method, ...]:
    known = before.servables.get(servable) if before is not None else None
    version = known.versions.get(number) if known is not None else None
    return version.methods if version is not None else ()


def _number_or_default(servable: Servable, version: str) -> str:
    """A version whose default method stands for that of one that is not there (yet)."""
    number = _number(servable.name, version)
    return version if not number or number in servable.versions else ""


def _number(servable: str, text: str) -> int:
    """A version as a number, 0 for nothing and for a label. Raises RequestError."""
    if not text or text in heads.LABELS:
        return 0
    if not (text.isascii() and text.isdigit()) or len(text) > _VERSION_DIGITS_MAX:
        raise RequestError(
            "unknown_service",
            f"version {text!r:.40} of servable {servable} is neither a number nor one of "
            f"{', '.join(heads.LABELS)}",
        )
    return int(text)


def _methods(worker: Mapping[str, Any]) -> tuple[Method, ...]:
    """The methods of a worker that are no hidden ones."""
    tensors = worker.get("tensors", {})
    return tuple(
        Method(name, tuple(inputs), tuple(outputs), method_tensors.read(name, tensors))
        for name, inputs, outputs in worker["methods"]
        if not name.startswith(heads.CALL_PREFIX)
    )


def _tensors(
    names: tuple[str, ...], specs: tuple[InstanceSpec | None, ...], is_batched: bool
) -> list[Tensor]:
    found = specs or (None,) * len(names)
    front = (-1,) if is_batched else ()
    return [
        Tensor(name, UNKNOWN_DATATYPE, (-1,))
        if spec is None
        else Tensor(name, DATATYPES[spec.dtype], front + spec.shape)
        for name, spec in zip(names, found, strict=True)
    ]
