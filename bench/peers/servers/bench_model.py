"""The model that every peer serves; a peer's environment has numpy and this file, nothing of ours.

BENCH_MODEL is the JSON document of `bench.models.Model`, BENCH_PORT and BENCH_GRPC_PORT are where
to listen.
"""

import json
import os
import time

import numpy as np

SPEC = json.loads(os.environ["BENCH_MODEL"])
PORT = int(os.environ.get("BENCH_PORT", "0"))
GRPC_PORT = int(os.environ.get("BENCH_GRPC_PORT", "0"))

IS_LARGE = SPEC["name"] == "large"
BATCH_MAX = SPEC["batch_max"]
WORKERS = SPEC["workers"]


def wait(items):
    """Sleep as long as the device would take for a batch of so many."""
    delay_ms = SPEC["delay_ms"] + SPEC["delay_per_item_ms"] * items
    if delay_ms > 0:
        time.sleep(delay_ms / 1000)


def add(x1, x2):
    """The sum of two batches."""
    wait(len(x1))
    return x1 + x2


def add_lists(instances):
    """Sums of instances {"x1": [...], "x2": [...]}, computed as one batch, as lists."""
    x1 = np.array([instance["x1"] for instance in instances], np.float32)
    x2 = np.array([instance["x2"] for instance in instances], np.float32)
    return add(x1, x2).tolist()
