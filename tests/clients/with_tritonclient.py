"""Triton's Python client against a server of `probe`: python with_tritonclient.py GRPC REST.

Runs in an environment of its own (`make clients`): the client wants an older protobuf than we do.
"""

import asyncio
import queue
import sys

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from tritonclient.utils import InferenceServerException

ROWS = np.array([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]], np.float32)
SQUARE = np.array([[1, 2], [3, 4]], np.float32)


def filled(kind, name, array, datatype, **options):
    tensor = kind(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, **options)
    return tensor


def raises(call, *words):
    """The text of the error that a call must end with."""
    try:
        call()
    except InferenceServerException as error:
        text = str(error)
        assert all(word in text for word in words), text
        return error
    raise AssertionError(f"nothing failed, {words} was expected")


def check_metadata(client, as_json):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("probe")
    assert client.is_model_ready("probe", "1")
    assert client.is_model_ready("probe.double")
    assert not client.is_model_ready("nobody")
    server = client.get_server_metadata(**as_json)
    assert server["name"] == "mindbus", server
    double = client.get_model_metadata("probe.double", **as_json)
    assert double["versions"] == ["1"], double
    tensor = double["inputs"][0]
    assert (tensor["name"], tensor["datatype"]) == ("x", "FP32"), double
    assert [int(length) for length in tensor["shape"]] == [-1, 4], double
    plain = client.get_model_metadata("probe", **as_json)
    assert [int(length) for length in plain["inputs"][0]["shape"]] == [2, 2], plain
    config = client.get_model_config("probe.double", **as_json)
    config = config.get("config", config)
    assert config["max_batch_size"] == 32, config
    index = client.get_model_repository_index(**as_json)
    models = index if isinstance(index, list) else index["models"]
    assert models[0]["name"] == "probe", models
    assert models[0]["state"] == "READY", models
    raises(lambda: client.get_model_metadata("nobody"), "not served")
    raises(lambda: client.load_model("probe"), "--model-control explicit")
    logs = client.update_log_settings({"log_info": True, "log_file": ""}, **as_json)
    assert as_values(logs) == as_values(client.get_log_settings(**as_json))
    assert as_values(logs)["log_info"] is True, logs
    client.update_log_settings({"log_info": None})
    assert as_values(client.get_log_settings(**as_json))["log_info"] is False
    raises(lambda: client.update_log_settings({"log_file": "/tmp/x"}), "cannot be changed")
    traces = as_values(client.get_trace_settings(**as_json))
    assert traces["trace_level"] in ("OFF", ["OFF"]), traces
    raises(
        lambda: client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}),
        "MINDBUS_TRACING=on",
    )


def as_values(settings):
    """The settings as plain values; gRPC's are maps in the field `settings`."""
    maps = settings.get("settings", settings)
    return {
        name: next(iter(value.values())) if isinstance(value, dict) and value else value
        for name, value in maps.items()
    }


def check_grpc(address):
    with triton_grpc.InferenceServerClient(address) as client:
        check_metadata(client, {"as_json": True})
        tensor = filled(triton_grpc.InferInput, "x", ROWS, "FP32")
        result = client.infer("probe.double", [tensor], request_id="7")
        assert np.array_equal(result.as_numpy("y"), 2 * ROWS)
        assert result.get_response().id == "7"
        assert result.get_response().model_version == "1"
        pair = [filled(triton_grpc.InferInput, name, SQUARE, "FP32") for name in ("x1", "x2")]
        result = client.infer(
            "probe", pair, outputs=[triton_grpc.InferRequestedOutput("y")], model_version="1",
            client_timeout=20, timeout=10_000_000, priority=1,
        )  # fmt: skip
        assert np.array_equal(result.as_numpy("y"), 2 * SQUARE)
        texts = np.array([b"one", b"t\xffo"], np.object_)
        result = client.infer("probe.echo", [filled(triton_grpc.InferInput, "x", texts, "BYTES")])
        assert result.as_numpy("x").tolist() == [b"one", b"t\xffo"]
        error = raises(lambda: client.infer("nobody", [tensor]), "not served")
        assert error.status() == "StatusCode.NOT_FOUND", error.status()
        wrong = filled(triton_grpc.InferInput, "x", SQUARE, "FP32")
        error = raises(lambda: client.infer("probe.double", [wrong]), "shape [2, 2]", "[-1, 4]")
        assert error.status() == "StatusCode.INVALID_ARGUMENT", error.status()
        check_grpc_async(client, tensor)
        check_grpc_stream(client, tensor)


def check_grpc_async(client, tensor):
    answers = queue.Queue()
    for _ in range(20):
        client.async_infer(
            "probe.double", [tensor], callback=lambda result, error: answers.put((result, error))
        )
    for _ in range(20):
        result, error = answers.get(timeout=20)
        assert error is None, error
        assert np.array_equal(result.as_numpy("y"), 2 * ROWS)


def check_grpc_stream(client, tensor):
    answers = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    for number in range(10):
        client.async_stream_infer("probe.double", [tensor], request_id=str(number))
    client.async_stream_infer("nobody", [tensor])
    for number in range(10):
        result, error = answers.get(timeout=20)
        assert error is None, error
        assert result.get_response().id == str(number)
    result, error = answers.get(timeout=20)
    assert "not served" in str(error), error
    client.async_stream_infer(
        "probe.double", [tensor], enable_empty_final_response=True, request_id="last"
    )
    result, error = answers.get(timeout=20)
    assert result.get_response().parameters["triton_final_response"].bool_param
    client.stop_stream()


async def check_grpc_asyncio(address):
    async with triton_grpc_aio.InferenceServerClient(address) as client:
        assert await client.is_model_ready("probe")
        tensor = filled(triton_grpc.InferInput, "x", ROWS, "FP32")
        results = await asyncio.gather(*(client.infer("probe.double", [tensor]) for _ in range(20)))
        assert all(np.array_equal(result.as_numpy("y"), 2 * ROWS) for result in results)

        async def requests():
            for number in range(5):
                yield {"model_name": "probe.double", "inputs": [tensor], "request_id": str(number)}

        seen = []
        async for result, error in client.stream_infer(requests()):
            assert error is None, error
            seen.append(result.get_response().id)
        assert seen == ["0", "1", "2", "3", "4"], seen


def check_http(address):
    with triton_http.InferenceServerClient(address, concurrency=4) as client:
        check_metadata(client, {})
        for is_binary_in in (True, False):
            tensor = filled(triton_http.InferInput, "x", ROWS, "FP32", binary_data=is_binary_in)
            for is_binary_out in (True, False):
                output = triton_http.InferRequestedOutput("y", binary_data=is_binary_out)
                result = client.infer("probe.double", [tensor], outputs=[output], request_id="7")
                assert np.array_equal(result.as_numpy("y"), 2 * ROWS)
                assert result.get_response()["id"] == "7"
            result = client.infer("probe.double", [tensor])
            assert np.array_equal(result.as_numpy("y"), 2 * ROWS)
        for algorithm in ("gzip", "deflate"):
            result = client.infer(
                "probe.double", [tensor], request_compression_algorithm=algorithm,
                response_compression_algorithm=algorithm,
            )  # fmt: skip
            assert np.array_equal(result.as_numpy("y"), 2 * ROWS)
            many = np.tile(ROWS, (200, 1))
            large = filled(triton_http.InferInput, "x", many, "FP32")
            result = client.infer(
                "probe.double", [large], request_compression_algorithm=algorithm,
                response_compression_algorithm=algorithm,
            )  # fmt: skip
            assert np.array_equal(result.as_numpy("y"), 2 * many)
        texts = np.array([b"one", b"two"], np.object_)
        for is_binary in (True, False):
            tensor = filled(triton_http.InferInput, "x", texts, "BYTES", binary_data=is_binary)
            output = triton_http.InferRequestedOutput("x", binary_data=is_binary)
            result = client.infer("probe.echo", [tensor], outputs=[output])
            assert [bytes(t) if isinstance(t, bytes) else t.encode()
                    for t in result.as_numpy("x")] == [b"one", b"two"]  # fmt: skip
        tensor = filled(triton_http.InferInput, "x", ROWS, "FP32")
        running = [client.async_infer("probe.double", [tensor]) for _ in range(8)]
        for each in running:
            assert np.array_equal(each.get_result().as_numpy("y"), 2 * ROWS)
        error = raises(lambda: client.infer("nobody", [tensor]), "not served")
        assert error.status() == "404", error.status()
        wrong = filled(triton_http.InferInput, "x", SQUARE, "FP32")
        raises(lambda: client.infer("probe.double", [wrong]), "shape [2, 2]")


async def check_http_asyncio(address):
    async with triton_http_aio.InferenceServerClient(address) as client:
        assert await client.is_server_ready()
        tensor = filled(triton_http.InferInput, "x", ROWS, "FP32")
        results = await asyncio.gather(*(client.infer("probe.double", [tensor]) for _ in range(20)))
        assert all(np.array_equal(result.as_numpy("y"), 2 * ROWS) for result in results)


def main(grpc_address, rest_address):
    check_grpc(grpc_address)
    asyncio.run(check_grpc_asyncio(grpc_address))
    check_http(rest_address)
    asyncio.run(check_http_asyncio(rest_address))
    print("every check passed")


if __name__ == "__main__":
    main(*sys.argv[1:])
