"""The model behind BentoML."""

import bentoml
import numpy as np
from bench_model import add


@bentoml.service(workers=1, traffic={"max_concurrency": 1024})
class Small:
    """{"x1": [...], "x2": [...]} in, {"y": [...]} out."""

    @bentoml.api
    async def infer(self, x1: list[float], x2: list[float]) -> dict[str, list[float]]:
        """The sum of two vectors."""
        row1, row2 = (np.array([row], np.float32) for row in (x1, x2))
        return {"y": add(row1, row2)[0].tolist()}
