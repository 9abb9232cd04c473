"""The models of the workloads, as every system under measurement is told to have them. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True)
class Model:
    """What is computed, how long it takes, and by how many workers in which batches.

    name: `small` gives the sum of two float32[16], `large` gives one float32[4194304] back.
    batch_max: 1 = no batching. stage_ms: of MindBus only, Python before the model and after it.
    """

    name: str
    delay_ms: float = 0.0
    delay_per_item_ms: float = 0.0
    workers: int = 1
    batch_max: int = 32
    stage_ms: float = 0.0

    def without_batching(self) -> Model:
        """The same model, one request at a time."""
        return replace(self, batch_max=1)

    def as_json(self) -> str:
        """The document that servers of others read from BENCH_MODEL."""
        return json.dumps(asdict(self))


W1 = Model("small")
W2 = Model("small", delay_ms=5.0, delay_per_item_ms=0.05)
W3 = Model("large", batch_max=1)
W4 = Model("small", delay_ms=10.0, workers=16, batch_max=1)

#: Requests per second that the models of W2 and W4 allow, if the device never waits.
W2_IDEAL_PER_S = 1000 * 32 / (5.0 + 32 * 0.05)
W4_IDEAL_PER_S = 16 * 1000 / 10.0
