"""A bare loop around a real model: `python -m bench.bare_loop MODEL SHAPE SECONDS`.

Prints, as its last line, instances per second by batch size. Each size gets its share of the time,
the best one is measured once more for all of it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from workers.backends.mindspore_graph import MindSporeBackend
from workers.servable.declarations import BATCH_SIZES_DEFAULT, ModelDeclaration


def rate(model: Any, batch: np.ndarray[Any, Any], seconds: float) -> float:
    """Instances per second of calls one after the other."""
    model.predict(0, [batch])  # compiles
    begin = time.perf_counter()
    calls = 0
    while time.perf_counter() - begin < seconds or not calls:
        model.predict(0, [batch])
        calls += 1
    return calls * len(batch) / (time.perf_counter() - begin)


def main() -> None:
    """Measure and print."""
    path, shape, seconds = Path(sys.argv[1]), json.loads(sys.argv[2]), float(sys.argv[3])
    backend = MindSporeBackend()
    backend.open_device("CPU", 0)
    declaration = ModelDeclaration(path.name, (path.name,), "mindir")
    model = backend.load(declaration, path.parent, None, "AES-GCM")
    random = np.random.default_rng(0)
    fixed = model.inputs[0][0].shape[0]
    sizes = BATCH_SIZES_DEFAULT if fixed == -1 else (fixed,)
    batches = {size: random.random((size, *shape), np.float32) for size in sizes}
    share = seconds / 2 / len(batches)
    rates = {size: rate(model, batch, share) for size, batch in batches.items()}
    best = max(rates, key=lambda size: rates[size])
    rates[best] = rate(model, batches[best], seconds)
    print(json.dumps({best: rates[best]}))


if __name__ == "__main__":
    main()
