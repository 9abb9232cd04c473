"""The model behind MLServer, in its event loop: that is its fastest setting for a small model."""

import bench_model
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Small(MLModel):
    """The sum of two tensors."""

    async def load(self):
        """Nothing to load."""
        return True

    async def predict(self, payload):
        """One request; MLServer has merged those of a batch."""
        x1, x2 = (NumpyCodec.decode_input(tensor) for tensor in payload.inputs)
        output = NumpyCodec.encode_output("y", bench_model.add(x1, x2))
        return InferenceResponse(model_name=self.name, outputs=[output])
