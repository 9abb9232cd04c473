"""Requests that look like one that was decoded before: their tensors are cut out of their bytes.

Theory of operation. Clients send the same names, shapes and lengths again and again. Of a request
that the dialect has decoded, the memo learns a *layout*: which bytes are the tensors of its one
instance (and the id, which replies repeat), and what the bytes between them are. A request whose
bytes between them are the same means the same, so it needs no decode: the contents of its tensors
are cut out as they lie there. Replies likewise: the dialect encodes a sample once, and of every
later reply only the contents are filled in.

Rule 1: the dialect stays the one place of rules. What a layout says was tried on the dialect: it
decodes the learned request with other contents, and must give those, and all else unchanged.
Rule 2: every byte that is no content is compared. What differs anywhere is left to the dialect,
and so is all that a dialect refuses or changes while it decodes.
Rule 3: only requests with one instance whose inputs have the dtype and the bytes that the method's
model wants have a layout.
Rule 4: learning costs several decodes, so it has an allowance; clients that never send the same
twice do not get more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from protocol import head
from protocol.binary_layout import learn_binary, learn_binary_reply
from protocol.dialects import Dialect
from protocol.errors import RequestError
from protocol.json_layout import learn_json, learn_json_reply
from protocol.layout import Contents, Cutter, Filler, ReplySample, Sample
from protocol.native import Buffer
from protocol.oip_parameters import Echo
from protocol.packed import Form, JsonStyle, PackedBatch
from protocol.values import (
    BYTES_DTYPE,
    DTYPES,
    EchoedInstances,
    Instance,
    MethodSignature,
    RequestSpec,
)

#: Layouts of one method in one dialect that are remembered.
LAYOUTS_MAX = 16

#: Requests above this size are left to the dialect: their decode costs little beside their copy.
BODY_BYTES_MAX = 64 * 1024

#: Decodes that one attempt to learn may take.
TRIES_MAX = 64

#: What one attempt to learn costs; each request that is seen earns one, up to a limit.
LEARN_COST = 64
ALLOWANCE_MAX = 8 * LEARN_COST

#: Replies of other forms, or with ids of other lengths, that are remembered for one layout.
FILLERS_MAX = 64

#: How the dialects that are JSON have their numbers; the others have raw bytes.
JSON_STYLES = {
    head.DIALECT_RESTFUL: JsonStyle(is_strict=True, is_flat=False, is_wide=True),
    head.DIALECT_OIP_JSON: JsonStyle(is_strict=False, is_flat=True, is_wide=False),
}


class Layout:
    """One layout: its requests are cut, and its replies filled.

    others: the frames in front of the body, all alike. echo: what replies need, with no id.
    """

    __slots__ = ("_cutter", "_others", "echo", "filler", "fillers", "form", "id_size")

    def __init__(self, others: tuple[bytes, ...], cutter: Cutter, echo: object) -> None:
        self.echo = echo
        self._others = others
        self._cutter = cutter
        #: How to write replies, by their form and the size of their id; None where nobody knows.
        self.fillers: dict[tuple[Form, int], Filler | None] = {}
        #: The last filler and what it is for: most replies are as the one before.
        self.form: Form | None = None
        self.id_size = 0
        self.filler: Filler | None = None

    def cut(self, frames: Sequence[Buffer]) -> Contents | None:
        """The contents of a request, None if it does not have this layout."""
        if len(frames) != len(self._others) + 1:
            return None
        for number, other in enumerate(self._others):
            if frames[number] != other:
                return None
        body = frames[-1]
        return self._cutter.cut(body) if isinstance(body, bytes) else None

    def echo_with(self, request_id: str) -> object:
        """What the reply needs of a request with this id."""
        if request_id and isinstance(self.echo, Echo):
            return self.echo._replace(id=request_id)
        return self.echo


class LayoutMemo:
    """The layouts of requests for one method, in one dialect.

    style: of a dialect that is JSON; None where contents are raw bytes.
    spec: what was asked for, without echo; replies may repeat it.
    """

    def __init__(
        self,
        dialect: Dialect,
        style: JsonStyle | None,
        spec: RequestSpec,
        method: MethodSignature,
    ) -> None:
        self._dialect = dialect
        self._style = style
        self._spec = spec
        self._method = method
        self._layouts: list[Layout] = []
        self._allowance = ALLOWANCE_MAX
        specs = [spec for spec in method.tensors.inputs if spec is not None]
        is_packable = (
            method.tensors.is_batched
            and bool(specs)
            and len(specs) == len(method.inputs)
            and all(
                each.dtype not in ("bool", BYTES_DTYPE) and min(each.shape, default=1) > 0
                for each in specs
            )
        )
        self._dtypes = tuple(DTYPES[each.dtype] for each in specs) if is_packable else ()
        self._shapes = tuple(each.shape for each in specs)

    @property
    def is_json(self) -> bool:
        """Contents are texts, whose length may differ."""
        return self._style is not None

    @property
    def is_usable(self) -> bool:
        """There may be requests of this method that have a layout."""
        return bool(self._dtypes)

    # ------------------------------------------------------------ requests

    def cut(self, frames: Sequence[Buffer]) -> Packed | None:
        """Cut a request; None if it has no layout that is known."""
        layouts = self._layouts
        if self._allowance < ALLOWANCE_MAX:
            self._allowance += 1
        for number, layout in enumerate(layouts):
            found = layout.cut(frames)
            if found is not None:
                if number:  # what comes often comes to the front
                    layouts[number - 1], layouts[number] = layout, layouts[number - 1]
                return Packed(self, layout, found.inputs, found.request_id)
        return None

    def unpack(self, inputs: Sequence[bytes]) -> Instance:
        """Contents as arrays that own their memory, in the shapes of the model."""
        return tuple(
            np.ndarray(shape, dtype, bytearray(content))
            for content, dtype, shape in zip(inputs, self._dtypes, self._shapes, strict=True)
        )

    def learn(self, frames: Sequence[Buffer], instances: list[Instance]) -> None:
        """Remember the layout of a request that the dialect has decoded to these instances."""
        if self._allowance < LEARN_COST or not all(isinstance(frame, bytes) for frame in frames):
            return
        if not frames or sum(map(len, frames)) > BODY_BYTES_MAX:
            return
        inputs = self._inputs_of(instances)
        if inputs is None:
            return
        self._allowance -= LEARN_COST
        echo = instances.echo if isinstance(instances, EchoedInstances) else None
        request_id = echo.id if isinstance(echo, Echo) else ""
        blank = echo._replace(id="") if isinstance(echo, Echo) else echo
        copied = tuple(map(bytes, frames))

        tries = iter(range(TRIES_MAX))

        def decode(body: bytes) -> Contents | None:
            if next(tries, None) is None:
                return None
            return self._decode([*copied[:-1], body], blank)

        sample = Sample(copied[-1], Contents(inputs, request_id), self._dtypes, decode)
        cutter = self._learn_cutter(sample)
        if cutter is not None:
            del self._layouts[LAYOUTS_MAX - 1 :]
            self._layouts.insert(0, Layout(copied[:-1], cutter, blank))

    def _learn_cutter(self, sample: Sample) -> Cutter | None:
        if self._style is None:
            return learn_binary(sample)
        return learn_json(sample, self._style)

    def _decode(self, frames: Sequence[bytes], blank: object) -> Contents | None:
        """Contents that the dialect decodes, if all else is as it was."""
        try:
            instances = self._dialect.decode_request(frames, self._method)
        except RequestError:
            return None
        inputs = self._inputs_of(instances)
        echo = instances.echo if isinstance(instances, EchoedInstances) else None
        request_id = echo.id if isinstance(echo, Echo) else ""
        if isinstance(echo, Echo):
            echo = echo._replace(id="")
        return None if inputs is None or echo != blank else Contents(inputs, request_id)

    def _inputs_of(self, instances: list[Instance]) -> tuple[bytes, ...] | None:
        """The contents of one instance as the model wants it; None if it is not so."""
        if len(instances) != 1 or len(instances[0]) != len(self._dtypes):
            return None
        inputs = []
        for value, dtype, shape in zip(instances[0], self._dtypes, self._shapes, strict=True):
            if not isinstance(value, np.ndarray) or value.dtype != dtype:
                return None
            if value.nbytes != math.prod(shape) * dtype.itemsize:
                return None
            inputs.append(value.tobytes())
        return tuple(inputs)

    # ------------------------------------------------------------ replies

    def choose_filler(self, layout: Layout, form: Form, id_size: int) -> None:
        """Set what writes replies of this form; None if the dialect has to encode them."""
        if form == layout.form and id_size == layout.id_size:
            layout.form = form  # the next reply of its batch has the same
            return
        key = (form, id_size)
        if key not in layout.fillers:
            if len(layout.fillers) >= FILLERS_MAX:
                layout.fillers.clear()
            layout.fillers[key] = self._learn_filler(layout, form, id_size)
        layout.form, layout.id_size, layout.filler = form, id_size, layout.fillers[key]

    def _learn_filler(self, layout: Layout, form: Form, id_size: int) -> Filler | None:
        if not form or any(
            DTYPES.get(dtype.name) != dtype or dtype.kind == "b" or 0 in shape
            for dtype, shape in form
        ):
            return None

        def encode(instance: Instance, request_id: str) -> list[bytes] | None:
            asked = self._spec._replace(echo=layout.echo_with(request_id))
            try:
                frames = self._dialect.encode_reply(asked, self._method, [instance])
            except (RequestError, TypeError):
                return None
            return [bytes(frame) for frame in frames]

        sample = ReplySample(form, id_size, encode)
        if self._style is None:
            return learn_binary_reply(sample)
        return learn_json_reply(sample, self._style)


class Packed(NamedTuple):
    """A request that was cut: one instance. inputs: bytes of each, in the order of the method's."""

    memo: LayoutMemo
    layout: Layout
    inputs: tuple[bytes, ...]
    request_id: str

    def unpack(self) -> Instance:
        """The instance, in the shapes of the model."""
        return self.memo.unpack(self.inputs)

    def echo(self) -> object:
        """What the reply needs of the request, for who encodes it by the dialect."""
        return self.layout.echo_with(self.request_id)

    def fill(self, batch: PackedBatch, row: int) -> list[Buffer] | None:
        """The reply; None if the dialect has to encode it."""
        layout, request_id = self.layout, self.request_id
        id_size = len(request_id)
        if id_size and self.memo.is_json:
            id_size = 1  # its length does not matter
        if batch.form is not layout.form or id_size != layout.id_size:
            self.memo.choose_filler(layout, batch.form, id_size)
        filler = layout.filler
        return None if filler is None else filler.fill(batch, row, request_id)
