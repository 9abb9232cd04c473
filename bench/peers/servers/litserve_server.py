"""The model behind LitServe: batches, two API servers, one worker."""

import litserve as ls
from bench_model import BATCH_MAX, PORT, WORKERS, add_lists


class Small(ls.LitAPI):
    """{"x1": [...], "x2": [...]} in, {"y": [...]} out."""

    def setup(self, device):
        """Nothing to load."""

    def decode_request(self, request):
        """As it came."""
        return request

    def batch(self, inputs):
        """As a list."""
        return inputs

    def predict(self, instances):
        """The sums of a batch."""
        return add_lists(instances)

    def unbatch(self, output):
        """One row for each request."""
        return output

    def encode_response(self, output):
        """As JSON."""
        return {"y": output}


if __name__ == "__main__":
    server = ls.LitServer(
        Small(max_batch_size=BATCH_MAX, batch_timeout=0.001),
        accelerator="cpu",
        workers_per_device=WORKERS,
        timeout=60,
    )
    server.run(
        host="127.0.0.1",
        port=PORT,
        num_api_servers=2,
        log_level="warning",
        generate_client_file=False,
    )
