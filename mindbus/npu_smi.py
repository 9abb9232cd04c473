"""Samples of `npu-smi`, taken beside everything else: it may hang, as it does with a sick device.

Off unless asked for (`mindbus serve --npu-smi npu-smi`). Huawei's NPU-Exporter tells more, and the
label `device` of our metrics is there to join the two; this is for who has only this server.

Rule: a scrape never waits for it; it shows the last sample of each device, and its age.
Rule: a run that takes longer than `RUN_S` is killed with all that it started. There is one run at a
time, and a device that did not answer waits for its next turn like any other.

Not tried with real devices: the form of its output is from Huawei's documentation.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from telemetry.log import get_logger

log = get_logger("GATEWAY")

#: From the end of a round over all devices to the next one.
PERIOD_S = 15.0

#: The longest that one run of it may take.
RUN_S = 2.0

#: Output beyond this is not read.
OUTPUT_BYTES_MAX = 64 * 1024

VISIBLE = "ASCEND_RT_VISIBLE_DEVICES"

_USAGE = re.compile(r"^\s*(\w[\w ]*?) Usage Rate\s*\(%\)\s*:\s*(\d+(?:\.\d+)?)\s*$", re.MULTILINE)

Sample = dict[str, float]


def parse_usages(output: str) -> Sample:
    """What `npu-smi info -t usages` says, as parts of one by name, such as `aicore` or `hbm`."""
    return {
        name.lower().replace(" ", "_"): float(percent) / 100
        for name, percent in _USAGE.findall(output)
    }


def physical_ids(logical_ids: Sequence[int], environment: Mapping[str, str]) -> dict[int, int]:
    """What npu-smi calls our devices: CANN counts only those that are visible.

    Empty if the variable cannot be read: better no sample than one of another device.
    """
    visible = environment.get(VISIBLE)
    if visible is None:
        return {number: number for number in logical_ids}
    try:
        physical = [int(item) for item in visible.split(",")]
    except ValueError:
        return {}
    return {number: physical[number] for number in logical_ids if 0 <= number < len(physical)}


class NpuSampler:
    """Samples every Ascend device that a worker of this server has.

    program: its name or path. read_status: the supervisor's status, which knows the devices.
    """

    def __init__(
        self, program: str, read_status: Callable[[], Awaitable[Mapping[str, Any]]]
    ) -> None:
        self._program = program
        self._read_status = read_status
        self._samples: dict[int, tuple[float, Sample]] = {}
        self._has_warned = False
        self._task = asyncio.create_task(self._run())

    def describe(self) -> dict[str, dict[str, Any]]:
        """The latest sample of each device: its age and its values."""
        now_s = time.monotonic()
        return {
            f"Ascend:{device}": {"age_s": now_s - at_s, "values": sample}
            for device, (at_s, sample) in self._samples.items()
        }

    def close(self) -> None:
        """Sample no more; a run that hangs is killed."""
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            try:
                status = await asyncio.wait_for(self._read_status(), RUN_S)
            except (OSError, TimeoutError, ValueError, KeyError):
                status = {"slots": []}
            for device, number in physical_ids(_ascend_ids(status), os.environ).items():
                await self._sample(device, number)
            await asyncio.sleep(PERIOD_S)

    async def _sample(self, device: int, number: int) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                *(self._program, "info", "-t", "usages", "-i", str(number)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            self._warn(f"cannot be started: {error.strerror}")
            return
        assert process.stdout is not None
        try:
            output = await asyncio.wait_for(process.stdout.read(OUTPUT_BYTES_MAX), RUN_S)
        except TimeoutError:
            self._warn(f"took longer than {RUN_S} s")
            return
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            # One in an uninterruptible sleep is not waited for; the kernel ends it when it can.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), RUN_S)
        sample = parse_usages(output.decode(errors="replace"))
        if sample:
            self._samples[device] = time.monotonic(), sample
        else:
            self._warn("says nothing of usages")

    def _warn(self, what: str) -> None:
        if not self._has_warned:  # once: it would be said four times a minute
            self._has_warned = True
            log.warning("npu-smi is of no use", program=self._program, what=what)


def _ascend_ids(status: Mapping[str, Any]) -> list[int]:
    devices = [slot["device"] for slot in status["slots"] if isinstance(slot["device"], Mapping)]
    return sorted({device["id"] for device in devices if device["target"] == "Ascend"})
