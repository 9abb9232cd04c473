"""The model behind KServe."""

from bench_model import GRPC_PORT, PORT, add
from kserve import InferOutput, InferResponse, Model, ModelServer


class Small(Model):
    """The sum of two tensors."""

    def __init__(self):
        super().__init__("small")
        self.ready = True

    async def predict(self, payload, *_headers, **_more):
        """One request, in the encoding in which it came."""
        x1, x2 = (tensor.as_numpy() for tensor in payload.inputs)
        y = add(x1, x2)
        output = InferOutput("y", list(y.shape), "FP32")
        output.set_data_from_numpy(y, binary_data=payload.from_grpc)
        return InferResponse(payload.id or "1", "small", [output], from_grpc=payload.from_grpc)


if __name__ == "__main__":
    ModelServer(http_port=PORT, grpc_port=GRPC_PORT, workers=1).start([Small()])
