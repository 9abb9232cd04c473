"""A scrape of a running server, as Prometheus reads it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families


class Scrape:
    """The samples of one `GET /metrics`."""

    def __init__(self, rest_address: str) -> None:
        begin_s = time.monotonic()
        with urlopen(f"http://{rest_address}/metrics", timeout=10) as answer:
            self.content_type = answer.headers["content-type"]
            text = answer.read().decode()
        #: how long it took, with a new connection
        self.took_s = time.monotonic() - begin_s
        self.families = list(text_string_to_metric_families(text))

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples with this name and at least these labels."""
        return sum(
            sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == f"mindbus_{name}" and labels.items() <= sample.labels.items()
        )

    def labels(self) -> dict[str, set[str]]:
        """Names of samples, each with the names of its labels."""
        found: dict[str, set[str]] = {}
        for family in self.families:
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
        return found


@contextmanager
def scraping(rest_address: str, interval_s: float = 0.5) -> Iterator[list[float]]:
    """Scrape in a thread for as long as the block runs; how long each scrape took, in seconds."""
    took_s: list[float] = []
    is_over = threading.Event()

    def scrape() -> None:
        while not is_over.wait(interval_s):
            begin_s = time.monotonic()
            with urlopen(f"http://{rest_address}/metrics", timeout=10) as answer:
                # Who answers too late is left out of it, so what is sure is only who was asked.
                assert b"mindbus_up" in answer.read(), "no scrape"
            took_s.append(time.monotonic() - begin_s)

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield took_s
    finally:
        is_over.set()
        thread.join()
