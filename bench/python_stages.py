"""Python stages beside the device: `python -m bench.python_stages [--seconds 5]`.

Overlap: Python and device take equally long per batch; throughput as a multiple of what one
after the other would give. Scaling: CPU-bound Python with 0, 1 and 2 extra workers. Every reply is
checked by value. The load generator and the server share the cores, and the model only sleeps.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from mindbus.bus_client import BusClient
from mindbus.server import ServableLaunch, Server, ServerSettings

SERVABLES = Path(__file__).resolve().parent / "servables"

#: What bench/servables/stages promises.
DEVICE_MS, BATCH = 20, 4
SERIAL_PER_S = BATCH / (2 * DEVICE_MS / 1000)

IN_FLIGHT = 48


def throughput(client: BusClient, method: str, seconds: float) -> float:
    """Requests per second in a closed loop of IN_FLIGHT; every value is checked."""
    x = np.arange(4, dtype=np.float32)
    futures = [client.submit("stages", method, {"x": x}) for _ in range(IN_FLIGHT)]
    for future in futures:  # warm: costs are known, every stage has run
        future.result()
    futures = [client.submit("stages", method, {"x": x}) for _ in range(IN_FLIGHT)]
    begin = time.perf_counter()
    answered = 0
    while time.perf_counter() - begin < seconds:
        (result,) = futures[answered % IN_FLIGHT].result()
        assert np.array_equal(result["y"], 2 * x), result
        futures[answered % IN_FLIGHT] = client.submit("stages", method, {"x": x})
        answered += 1
    taken_s = time.perf_counter() - begin
    for future in futures:
        future.result()
    return answered / taken_s


def serve(extra_workers: int, methods: tuple[str, ...], seconds: float) -> list[float]:
    """Start a server and measure some methods."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="mb") as directory:
        server = Server(ServerSettings(run_directory=Path(directory, "run")))
        launch = ServableLaunch(
            servable_directory=str(SERVABLES),
            servable_name="stages",
            extra_workers=extra_workers,
            backend="numpy",
        )
        server.start_servables([launch])
        try:
            with BusClient(server.status()["producers"][0]) as client:
                return [throughput(client, method, seconds) for method in methods]
        finally:
            server.stop()


def main() -> None:
    """Entry of `python -m bench.python_stages`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=5.0)
    seconds = parser.parse_args().seconds
    methods = ("waiting_batch", "waiting_each")
    for method, rate in zip(methods, serve(0, methods, seconds), strict=True):
        print(
            f"overlap  {method:<14} {rate:7.1f}/s  {rate / SERIAL_PER_S:.2f} x serial", flush=True
        )
    base = 0.0
    for extra_workers in (0, 1, 2):
        (rate,) = serve(extra_workers, ("burning",), seconds)
        base = base or rate
        cores = os.cpu_count()
        print(f"scaling  extra={extra_workers} {rate:7.1f}/s  {rate / base:.2f} x ({cores} cores)")


if __name__ == "__main__":
    main()
