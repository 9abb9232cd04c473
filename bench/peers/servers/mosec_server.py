"""The model behind Mosec: JSON for the small one, plain bytes for the large one."""

import numpy as np
from bench_model import BATCH_MAX, IS_LARGE, WORKERS, add_lists, wait
from mosec import Server, Worker


class Small(Worker):
    """{"x1": [...], "x2": [...]} in, {"y": [...]} out."""

    def forward(self, data):
        """One request, or a batch of them."""
        if BATCH_MAX == 1:
            return {"y": add_lists([data])[0]}
        return [{"y": y} for y in add_lists(data)]


class Large(Worker):
    """The bytes of a tensor in and out."""

    def deserialize(self, data):
        """As an array."""
        return np.frombuffer(data, np.float32)

    def serialize(self, data):
        """As bytes."""
        return data.tobytes()

    def forward(self, data):
        """The same values."""
        wait(1)
        return data.copy()


if __name__ == "__main__":
    server = Server()
    batching = {"max_batch_size": BATCH_MAX, "max_wait_time": 1} if BATCH_MAX > 1 else {}
    server.append_worker(Large if IS_LARGE else Small, num=WORKERS, **batching)
    server.run()
