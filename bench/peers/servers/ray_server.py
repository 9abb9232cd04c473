"""The model behind Ray Serve: one replica, batches."""

import signal

import ray
from bench_model import BATCH_MAX, PORT, add_lists
from ray import serve


@serve.deployment(max_ongoing_requests=256)
class Small:
    """{"x1": [...], "x2": [...]} in, {"y": [...]} out."""

    @serve.batch(max_batch_size=BATCH_MAX, batch_wait_timeout_s=0.001)
    async def add(self, instances):
        """The sums of a batch."""
        return [{"y": y} for y in add_lists(instances)]

    async def __call__(self, request):
        """One request."""
        return await self.add(await request.json())


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(Small.bind(), route_prefix="/infer")
    signal.pause()
