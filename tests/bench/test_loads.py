"""What wrk and h2load print, read as they print it."""

from __future__ import annotations

import pytest

from bench.loads_c import (
    H2LoadCounts,
    LoadError,
    connections_of,
    failed_calls,
    parse_h2load,
    parse_h2load_log,
    parse_wrk,
)

WRK = """Running 2s test @ http://127.0.0.1:35651/v2/models/small/infer
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.95ms    1.12ms  21.39ms   88.25%
    Req/Sec    21.91k     1.58k   24.05k    75.00%
  43611 requests in 2.01s, 11.73MB read
Requests/sec:  21711.53
Transfer/sec:      5.84MB
FIGURES 43611 2008655 11 2790 7410
"""

H2LOAD = """starting benchmark...
spawning thread #0: 4 total client(s). Timing-based test with 0s of warm-up time and 2s of main.
Application protocol: h2c

finished in 2.00s, 9876.50 req/s, 1.61MB/s
requests: 19753 total, 19817 started, 19753 done, 19750 succeeded, 3 failed, 0 errored, 0 timeout
status codes: 19750 2xx, 0 3xx, 0 4xx, 3 5xx
traffic: 3.22MB (3377763) total, 752.74KB (770803) headers (saved 73%), 2.09MB (2192583) data
                     min         max         mean         sd        +/- sd
time for request:      512us     17.32ms      6.44ms      1.41ms    82.15%
time for connect:      102us       180us       141us        39us    50.00%
time to 1st byte:     2.14ms      4.90ms      3.44ms      1.31ms    50.00%
req/s           :    2461.16     2475.61     2469.07        6.04    50.00%
"""


def test_wrk_gives_its_own_duration_and_counts_errors_as_failed() -> None:
    figures = parse_wrk(WRK)
    assert (figures.requests, figures.failed) == (43_611, 11)
    assert figures.rate == pytest.approx((43_611 - 11) / 2.008655)
    assert (figures.p50_ms, figures.p99_ms) == (2.79, 7.41)


def test_wrk_without_figures_is_an_error_that_quotes_it() -> None:
    with pytest.raises(LoadError, match="unable to connect"):
        parse_wrk("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_h2load_gives_counts_rate_and_the_bytes_of_answers() -> None:
    assert parse_h2load(H2LOAD) == H2LoadCounts(19_753, 19_750, 2.0, 9876.5, 2_192_583)


@pytest.mark.parametrize(
    ("said", "seconds"), [("950.10ms", 0.9501), ("812us", 812e-6), ("1.5m", 90.0), ("3.00s", 3.0)]
)
def test_h2load_writes_durations_in_several_units(said: str, seconds: float) -> None:
    counts = parse_h2load(H2LOAD.replace("finished in 2.00s", f"finished in {said}"))
    assert counts.seconds == pytest.approx(seconds)


def test_h2load_that_could_not_connect_is_an_error() -> None:
    with pytest.raises(LoadError):
        parse_h2load("starting benchmark...\nclient could not connect to host\n")


def test_h2load_log_gives_latencies_of_good_answers_in_order() -> None:
    log = "1700000000000000\t200\t900\n1700000000000100\t503\t10\n1700000000000200\t200\t450\n"
    assert parse_h2load_log(log) == [0.45, 0.9]


def test_calls_that_end_without_a_message_are_failed_although_their_status_is_200() -> None:
    answer_bytes = 111
    right = H2LoadCounts(1_000, 1_000, 2.0, 500.0, 1_000 * answer_bytes)
    assert failed_calls(right, answer_bytes) == 0
    empty = right._replace(answer_bytes=750 * answer_bytes)
    assert failed_calls(empty, answer_bytes) == 250
    assert failed_calls(right._replace(answer_bytes=0), answer_bytes) == 1_000


def test_answers_cut_off_when_the_time_is_up_are_forgiven_and_errors_are_not() -> None:
    counts = H2LoadCounts(1_000, 996, 2.0, 500.0, 990 * 111)
    assert failed_calls(counts, 111) == 4


@pytest.mark.parametrize(
    ("concurrency", "expected"), [(1, (1, 1)), (4, (4, 1)), (8, (4, 2)), (64, (4, 16))]
)
def test_calls_in_flight_share_four_connections(
    concurrency: int, expected: tuple[int, int]
) -> None:
    assert connections_of(concurrency) == expected
