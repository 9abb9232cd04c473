"""Samples of npu-smi: what it says is shown, and that it hangs is felt by nobody."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.numbers import Numbers
from mindbus import npu_smi
from mindbus.npu_smi import NpuSampler, parse_usages, physical_ids
from mindbus.scrape import ASK_S, Scraper

USAGES = """
        NPU ID                         : 3
        Chip Count                     : 1

        HBM Capacity(MB)               : 65536
        HBM Usage Rate(%)              : 5
        Aicore Usage Rate(%)           : 42
        HBM Bandwidth Usage Rate(%)    : 0
        Chip ID                        : 0
"""

STATUS: dict[str, Any] = {
    "state": "serving",
    "slots": [
        {"slot": "add/0", "device": {"target": "Ascend", "id": 3}},
        {"slot": "add/1", "device": {"target": "CPU", "id": 0}},
        {"slot": "gateway/0", "device": None},
    ],
}


async def status() -> dict[str, Any]:
    return STATUS


def fake(directory: Path, program: str) -> str:
    path = directory / "npu-smi"
    path.write_text(f"#!{sys.executable}\n{program}")
    path.chmod(0o755)
    return str(path)


def test_usages_are_read_and_the_rest_is_left() -> None:
    assert parse_usages(USAGES) == {"hbm": 0.05, "aicore": 0.42, "hbm_bandwidth": 0.0}
    assert parse_usages("npu-smi: no such device") == {}


@pytest.mark.parametrize(
    ("visible", "expected"),
    [(None, {0: 0, 2: 2}), ("4,5,6", {0: 4, 2: 6}), ("4", {0: 4}), ("4, x", {}), ("", {})],
)
def test_devices_have_the_names_that_npu_smi_has_for_them(
    visible: str | None, expected: dict[int, int]
) -> None:
    environment = {} if visible is None else {npu_smi.VISIBLE: visible}
    assert physical_ids([0, 2], environment) == expected


@pytest.mark.process
def test_every_ascend_device_is_sampled(tmp_path: Path) -> None:
    program = fake(
        tmp_path,
        f"import sys\nassert sys.argv[1:] == 'info -t usages -i 3'.split()\nprint('''{USAGES}''')",
    )

    async def run() -> dict[str, dict[str, Any]]:
        sampler = NpuSampler(program, status)
        while not sampler.describe():
            await asyncio.sleep(0.01)
        sampler.close()
        return sampler.describe()

    (sample,) = asyncio.run(asyncio.wait_for(run(), 20)).items()
    assert sample[0] == "Ascend:3"
    assert sample[1]["values"]["aicore"] == 0.42
    assert 0 <= sample[1]["age_s"] < 20


@pytest.mark.process
@pytest.mark.shows("R30")
def test_scrapes_do_not_wait_for_an_npu_smi_that_hangs_and_it_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    hangs = (
        "import os, subprocess, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(60)\n"
    )
    program = fake(tmp_path, hangs)
    own = Numbers().describe(0, 0)

    async def run() -> list[float]:
        async def stats() -> dict[str, Any]:
            raise OSError("there is no broker here")

        scraper = Scraper("gateway/0", stats, lambda: own, None)
        scraper._npus = NpuSampler(program, status)
        took_s = []
        while not pids.exists() or any(map(_is_there, pids.read_text().split())):
            begin_s = time.monotonic()
            await scraper.scrape()
            took_s.append(time.monotonic() - begin_s)
            await asyncio.sleep(0.02)
        scraper.close()
        return took_s

    took_s = sorted(asyncio.run(asyncio.wait_for(run(), 30)))
    assert len(took_s) > 5
    assert took_s[len(took_s) // 2] < ASK_S + 0.05, took_s


def _is_there(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.process
def test_a_program_that_is_not_there_costs_the_samples_only(tmp_path: Path) -> None:
    async def run() -> None:
        sampler = NpuSampler(str(tmp_path / "absent"), status)
        await asyncio.sleep(0.05)
        assert sampler.describe() == {}
        assert not sampler._task.done()
        sampler.close()

    asyncio.run(run())
