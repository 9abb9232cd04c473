"""What both doors of the Open Inference Protocol say of a server and its models: plain values."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from gateway.model_directory import ModelDirectory
from gateway.models import PLATFORM, Method, Models, Tensor
from gateway.oip_settings import OipSettings, SettingsControl
from gateway.readiness import Readiness
from protocol.errors import RequestError

SERVER_NAME = "mindbus"

#: Triton's names of what works here; `model_repository` comes with its configuration.
EXTENSIONS = (
    "binary_tensor_data",
    "parameters",
    "model_configuration",
    "model_repository",
    "statistics",
)

#: Datatypes whose name in a model configuration is not TYPE_ and theirs.
_CONFIG_TYPES = {"BYTES": "TYPE_STRING", "": "TYPE_INVALID"}


class ModelControl(Protocol):
    """Loads models on behalf of clients, where the server allows it."""

    def load(self, servable: str, version: int) -> Awaitable[None]:
        """Take a servable to a version, 0 = the latest; back when it is. Raises RequestError."""


class OipServer:
    """A server as its clients see it. version: MindBus's own. wall_ms: since the epoch.

    control: None where clients may not load models.
    """

    def __init__(
        self,
        directory: ModelDirectory,
        readiness: Readiness,
        version: str,
        wall_ms: Callable[[], int],
        settings: SettingsControl,
        control: ModelControl | None = None,
    ) -> None:
        self.directory = directory
        self.version = version
        self.control = control
        self.settings = OipSettings(directory, settings)
        self._readiness = readiness
        self._wall_ms = wall_ms

    def extensions(self) -> tuple[str, ...]:
        """What works beyond the protocol itself."""
        return EXTENSIONS + self.settings.extensions()

    async def why_not_ready(self) -> str | None:
        """None if every servable is ready."""
        return await self._readiness.why_not_ready()

    async def why_model_not_ready(self, model: str, version: str) -> str | None:
        """None if a version of a model is ready."""
        try:
            found, _ = (await self.directory.models()).version_of(model, version)
        except RequestError as error:
            return error.message
        return found.not_ready

    async def model_metadata(self, model: str, version: str) -> dict[str, Any]:
        """Versions and tensors of a model. Raises RequestError."""
        models = await self.directory.models()
        servable, _ = models.find(model)
        _, method = models.version_of(model, version)
        return {
            "name": model,
            "versions": [str(number) for number in sorted(servable.versions)],
            "platform": PLATFORM,
            "inputs": [tensor._asdict() for tensor in method.input_tensors()],
            "outputs": [tensor._asdict() for tensor in method.output_tensors()],
        }

    async def model_config(self, model: str, version: str) -> dict[str, Any]:
        """A model's configuration in Triton's form. Raises RequestError."""
        _, method = (await self.directory.models()).version_of(model, version)
        is_batched = method.tensors.is_batched
        return {
            "name": model,
            "platform": PLATFORM,
            "backend": PLATFORM,
            "max_batch_size": _batch_size_max(method),
            "input": [_config(tensor, is_batched) for tensor in method.input_tensors()],
            "output": [_config(tensor, is_batched) for tensor in method.output_tensors()],
        }

    async def model_statistics(self, model: str, version: str) -> dict[str, Any]:
        """What has become of requests, since the broker began. model: "" = of every model.

        Raises: RequestError.
        """
        counted = (await self.directory.models()).counted(model, version)
        now_ms = self._wall_ms()
        return {"model_stats": [_statistics(*each, now_ms) for each in counted]}

    async def models(self) -> Models:
        """Every servable. Raises RequestError."""
        return await self.directory.models()


def _statistics(name: str, version: int, counts: Mapping[str, int], now_ms: int) -> dict[str, Any]:
    """now_ms: since the epoch, as clients want `last_inference`; 0 = there was none."""
    success = counts["success"]
    queued, total = counts["queue_ns"], counts["success_ns"]
    return {
        "name": name,
        "version": str(version),
        "last_inference": now_ms - counts["quiet_ms"] if success else 0,
        "inference_count": counts["instances"],
        "execution_count": counts["executions"],
        "inference_stats": {
            "success": {"count": success, "ns": total},
            "fail": {"count": counts["fail"], "ns": counts["fail_ns"]},
            "queue": {"count": success, "ns": queued},
            # Clients want these three to count the same; the two are in the time between.
            "compute_input": {"count": success, "ns": 0},
            "compute_infer": {"count": success, "ns": total - queued},
            "compute_output": {"count": success, "ns": 0},
        },
    }


def _batch_size_max(method: Method) -> int:
    """0 = tensors have no batch dimension. Larger requests are computed in several batches."""
    return max(1, method.tensors.batch_size_max) if method.tensors.is_batched else 0


def _config(tensor: Tensor, is_batched: bool) -> Mapping[str, Any]:
    """A tensor in a model configuration, where the batch dimension is not told."""
    is_known = bool(tensor.datatype)
    kind = _CONFIG_TYPES.get(tensor.datatype, f"TYPE_{tensor.datatype}")
    dims = tensor.shape[1:] if is_batched and is_known else tensor.shape
    return {"name": tensor.name, "data_type": kind, "dims": list(dims)}
