"""What a backend must offer, and the words in which it describes a loaded model.

A backend knows one inference library. `open_device` is called once per process, before any
model; `load` once per declared model. Everything that goes wrong inside is a `BackendError`
whose text is for the operator's log: clients see only `Predict Failed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from workers.servable.declarations import ModelDeclaration

Array = npt.NDArray[Any]


class BackendError(Exception):
    """The inference library failed; the text names the thing and says why. For logs only."""


class GroupError(BackendError):
    """Ranks of a distributed model failed a batch; unlike others, its text is for clients.

    Such a batch is not tried again in parts.
    """


class TensorSpec(NamedTuple):
    """One input or output of a loaded model.

    dtype: a numpy dtype in native byte order, one of `protocol.values.DTYPES`.
    shape: the model's own, batch dimension included; -1 for a dimension known only at run time.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class DeviceReport(NamedTuple):
    """The device that was really opened. target: "CPU", "GPU" or "Ascend"."""

    target: str
    id: int


class LoadedModel(Protocol):
    """A model on its device, ready to compute. Used by one thread at a time."""

    @property
    def inputs(self) -> Sequence[tuple[TensorSpec, ...]]:
        """The inputs of each subgraph, in the order of the model files."""

    @property
    def outputs(self) -> Sequence[tuple[TensorSpec, ...]]:
        """The outputs of each subgraph, in the order of the model files."""

    def predict(self, subgraph: int, arrays: Sequence[Array]) -> Sequence[Array]:
        """Compute one batch on one subgraph.

        arrays: one per input, C order, of the spec's dtype and shape (-1 filled in); the backend
            must not write to them, nor keep them after it returned.
        Returns: one array per output, which the caller may keep and write to.
        Raises: BackendError.
        """


class Backend(Protocol):
    """An inference library in this process."""

    def open_device(self, target: str | None, device_id: int) -> DeviceReport:
        """Bind the process to a device; target None = the best that is there.

        Raises: BackendError if there is no such device, or the library took another one.
        """

    def load(
        self, model: ModelDeclaration, version_directory: Path, dec_key: bytes | None, dec_mode: str
    ) -> LoadedModel:
        """Load every file of `model` from `version_directory`, decrypted with `dec_key` if given.

        dec_mode: "AES-GCM" or "AES-CBC".
        Raises: BackendError.
        """
