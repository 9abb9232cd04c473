"""KServe's Python client against a server of `probe`: python with_kserve.py GRPC REST."""

import asyncio
import sys

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, RESTConfig
from kserve.protocol.infer_type import InferInput, InferRequest

ROWS = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)


def double_request(model, is_binary):
    tensor = InferInput("x", list(ROWS.shape), "FP32")
    tensor.set_data_from_numpy(ROWS, binary_data=is_binary)
    return InferRequest(model, [tensor], request_id="7")


async def check_rest(address):
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    url = f"http://{address}"
    assert await client.is_server_live(url)
    assert await client.is_server_ready(url)
    assert await client.is_model_ready(url, "probe.double")
    assert not await client.is_model_ready(url, "nobody")
    for is_binary in (False, True):
        response = await client.infer(
            url, double_request("probe.double", is_binary), model_name="probe.double"
        )
        assert response.id == "7"
        assert np.array_equal(response.outputs[0].as_numpy(), 2 * ROWS)
    code = None
    try:
        await client.infer(url, double_request("nobody", False), model_name="nobody")
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
    assert code == 404


async def check_grpc(address):
    client = InferenceGRPCClient(address)
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("probe.double")
    for is_binary in (False, True):
        response = await client.infer(double_request("probe.double", is_binary))
        assert response.id == "7"
        assert np.array_equal(response.outputs[0].as_numpy(), 2 * ROWS)
    code = None
    try:
        await client.infer(double_request("nobody", False))
    except grpc.RpcError as error:
        code = error.code()
    assert code == grpc.StatusCode.NOT_FOUND
    await client.close()


async def main(grpc_address, rest_address):
    await check_rest(rest_address)
    await check_grpc(grpc_address)
    print("every check passed")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
