"""A scrape shows the whole server, and waits for nobody."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from gateway.numbers import Numbers
from mindbus.scrape import ASK_S, Scraper, read_status, resident_bytes

OWN = Numbers().describe(0, 0)
STATUS: dict[str, Any] = json.loads(json.dumps({
    "state": "serving",
    "slots": [
        {"slot": "gateway/1", "kind": "gateway", "state": "READY", "pid": None, "numbers": OWN,
         "servable": None},
    ],
    "ends": [],
    "roll": None,
}))  # fmt: skip


async def no_broker() -> dict[str, Any]:
    raise OSError("nobody is there")


def scraped(scraper: Scraper) -> str:
    async def scrape() -> str:
        return (await scraper.scrape())[1].decode()

    return asyncio.run(scrape())


def test_a_broker_that_is_away_is_shown_as_down() -> None:
    text = scraped(Scraper("gateway/0", no_broker, lambda: OWN, None))
    assert 'mindbus_up{source="broker"} 0.0' in text
    assert 'mindbus_gateway_inflight{door="rest",gateway="gateway/0"} 0.0' in text


def test_a_broker_that_hangs_costs_a_scrape_no_more_than_its_patience() -> None:
    asked = 0

    async def hang() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        await asyncio.sleep(60)
        raise AssertionError("nobody waits so long")

    async def run() -> list[float]:
        scraper = Scraper("gateway/0", hang, lambda: OWN, None)
        times = []
        for _ in range(3):
            begin_s = time.monotonic()
            await scraper.scrape()
            times.append(time.monotonic() - begin_s)
        return times

    assert all(ASK_S <= took_s < ASK_S + 0.5 for took_s in asyncio.run(run()))
    assert asked == 1, "an open question is not asked again"


def test_the_numbers_of_other_gateways_come_from_the_supervisor() -> None:
    # The socket's path must stay below 108 bytes, which pytest's own directories are not.
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="mb-") as directory:
        path = str(Path(directory, "control.sock"))

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert json.loads(await reader.readline()) == {"command": "status"}
            writer.write(json.dumps({"ok": True, "status": STATUS}).encode() + b"\n")

        async def run() -> str:
            async with await asyncio.start_unix_server(answer, path):
                assert await read_status(path) == STATUS
                scraper = Scraper("gateway/0", no_broker, lambda: OWN, path)
                return (await scraper.scrape())[1].decode()

        text = asyncio.run(run())
    for name in ("gateway/0", "gateway/1"):
        assert f'mindbus_gateway_inflight{{door="grpc",gateway="{name}"}} 0.0' in text
    assert 'mindbus_up{source="supervisor"} 1.0' in text


def test_the_memory_of_a_process_is_read_and_none_is_none() -> None:
    assert (resident_bytes(os.getpid()) or 0) > 1_000_000
    assert resident_bytes(None) is None
    assert resident_bytes(2**22 + 1) is None
