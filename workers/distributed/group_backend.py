"""The backend of a distributed servable: its one model is a group of ranks.

It opens no device and imports no inference library: the agents do.
"""

from __future__ import annotations

import atexit
import secrets
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from protocol import limits
from protocol.group import Graph, Place
from workers.backends.base import Array, BackendError, DeviceReport, TensorSpec
from workers.distributed.group import NS_PER_MS
from workers.distributed.group_link import GroupLink
from workers.distributed.members import GroupSettings
from workers.distributed.rank_table import RankTableError, check_ranks, read_rank_table
from workers.launch import GroupPlace
from workers.servable.declarations import ModelDeclaration, ServableDeclaration

_NS_PER_S = 1_000_000_000


class GroupBackend:
    """Forms a group for the servable's one model. is_first: the first generation of its worker."""

    def __init__(self, place: GroupPlace, is_first: bool) -> None:
        self._place = place
        self._is_first = is_first
        self._target = "CPU"
        self._link: GroupLink | None = None
        self._is_serving = False

    def open_device(self, target: str | None, device_id: int) -> DeviceReport:
        """Report what the ranks run on; nothing is opened here."""
        self._target = target or self._target
        return DeviceReport(self._target, device_id)

    def check(self, declaration: ServableDeclaration) -> None:
        """Raises: BackendError if the servable is no distributed one."""
        name, models = declaration.name, list(declaration.models.values())
        if len(models) != 1:
            raise BackendError(
                f"Distributed servable '{name}' has not been declared or has been declared more "
                f"than once, declared number: {len(models)}"
            )
        if models[0].group is None:
            raise BackendError(f"Servable '{name}' is not registered as distributed servable")

    def load(
        self,
        model: ModelDeclaration,
        version_directory: Path,  # noqa: ARG002  agents have the files
        dec_key: bytes | None,  # noqa: ARG002
        dec_mode: str,  # noqa: ARG002
    ) -> GroupModel:
        """Wait until the agents of all ranks have registered. Raises: BackendError."""
        assert model.group is not None, model.key
        text, places = self._read_rank_table(model)
        wait_s = self._place.wait_s
        settings = GroupSettings(
            epoch=secrets.token_hex(8),
            places=places,
            rank_table=text,
            stage_size=model.group.stage_size,
            batched_input=_batched_input(model),
            wait_ns=wait_s * _NS_PER_S if wait_s else None,
        )
        link = self._link = GroupLink(settings, self._place.address)
        atexit.register(self._say_goodbye)
        return GroupModel(link, link.wait_formed())

    def serve(self, on_lost: Callable[[str], None]) -> None:
        """From now on the end of the group ends the worker; see `GroupLink.serve`."""
        assert self._link is not None
        self._is_serving = True
        self._link.serve(on_lost)

    def _read_rank_table(self, model: ModelDeclaration) -> tuple[str, tuple[Place, ...]]:
        file = self._place.rank_table_file
        assert model.group is not None, model.key
        try:
            text = Path(file).read_text(encoding="utf-8")
            places = read_rank_table(text, file)
            check_ranks(
                places, model.group.rank_size, model.group.stage_size, file, self._target != "CPU"
            )
        except (OSError, UnicodeDecodeError) as error:
            raise BackendError(f"failed to open rank table file: {file}, {error}") from None
        except RankTableError as error:
            raise BackendError(str(error)) from None
        return text, places

    def _say_goodbye(self) -> None:
        """At the end of the process: agents and launchers end, too, unless a successor comes."""
        if self._link is not None and (self._is_serving or self._is_first):
            self._link.close("the worker has ended")


class GroupModel:
    """All ranks as one loaded model; several threads may use it at once."""

    def __init__(self, link: GroupLink, graphs: tuple[Graph, ...]) -> None:
        self.inputs = [tuple(TensorSpec(*form) for form in graph.inputs) for graph in graphs]
        self.outputs = [tuple(TensorSpec(*form) for form in graph.outputs) for graph in graphs]
        self._link = link
        self._lock = threading.Lock()
        #: Shapes that the ranks have compiled their graphs for.
        self._known: set[tuple[int, tuple[tuple[int, ...], ...]]] = set()

    def predict(self, subgraph: int, arrays: Sequence[Array]) -> Sequence[Array]:
        """Compute one batch on all ranks; the last one's outputs.

        Raises: GroupError. Does not return if the group is lost meanwhile: the process ends.
        """
        key = (subgraph, tuple(array.shape for array in arrays))
        with self._lock:
            is_known = key in self._known
        wait_ms = limits.GROUP_RESULT_WAIT_MS if is_known else limits.GROUP_COMPILE_WAIT_MS
        outputs = self._link.predict(subgraph, arrays, wait_ms * NS_PER_MS)
        with self._lock:
            self._known.add(key)
        # What came inside of a message is a view of it, and nobody may write there.
        return [np.array(output) for output in outputs]


def _batched_input(model: ModelDeclaration) -> int | None:
    """The first input with a batch dimension."""
    if not model.with_batch_dim:
        return None
    without = model.without_batch_dim_inputs
    return next(number for number in range(len(without) + 1) if number not in without)
