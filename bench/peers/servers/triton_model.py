"""The model behind Triton's Python backend; copied into a model repository as `model.py`."""

import bench_model
import numpy as np
import triton_python_backend_utils as pb_utils


def _tensor(request, name):
    return pb_utils.get_input_tensor_by_name(request, name).as_numpy()


class TritonPythonModel:
    """Gets the requests of a batch, computes all of them at once, and answers each."""

    def execute(self, requests):
        """One response per request, in their order."""
        if bench_model.IS_LARGE:
            bench_model.wait(len(requests))
            return [_response(_tensor(request, "x")) for request in requests]
        if len(requests) == 1:
            (request,) = requests
            return [_response(bench_model.add(_tensor(request, "x1"), _tensor(request, "x2")))]
        x1 = np.concatenate([_tensor(request, "x1") for request in requests])
        x2 = np.concatenate([_tensor(request, "x2") for request in requests])
        y = bench_model.add(x1, x2)
        return [_response(y[row : row + 1]) for row in range(len(requests))]


def _response(y):
    return pb_utils.InferenceResponse([pb_utils.Tensor("y", y)])
