"""Requests in each dialect, and checks that fail for a wrong answer."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench import bodies
from bench.machine import CpuTimes, parse_cpu_times, usage_between
from bench.models import W1, W4
from bench.peers.triton import config_text
from protocol import head as heads
from protocol import native, oip
from protocol.values import MethodSignature

TENSORS = {"x1": bodies.X1, "x2": bodies.X2}


METHOD = MethodSignature("small", "add", ("x1", "x2"), ("y",))


def test_infer_request_is_what_our_own_decoder_reads() -> None:
    message = bodies.oip_grpc("small", TENSORS)
    assert bodies.read_fields(message)[0] == (1, b"small")
    (instance,) = oip.decode_request([message], METHOD)
    assert [value.tolist() for value in instance] == [bodies.X1.tolist(), bodies.X2.tolist()]


def test_bus_request_is_what_our_own_decoder_reads() -> None:
    head, *frames = bodies.bus_parts("small", "add", TENSORS)
    asked = heads.unpack(head)
    assert (asked.service, asked.method, asked.body_frames) == (b"small/0", b"add", len(frames))
    (instance,) = native.decode_request(frames, METHOD)
    assert [value.tolist() for value in instance] == [bodies.X1.tolist(), bodies.X2.tolist()]


def test_batch_dimension_is_added_unless_it_is_there() -> None:
    batch = np.zeros((3, 2), np.float32)
    body, json_bytes = bodies.oip_binary({"x": batch}, "y", has_batch=True)
    assert json.loads(body[:json_bytes])["inputs"][0]["shape"] == [3, 2]
    assert json.loads(bodies.oip_json({"x": batch}))["inputs"][0]["shape"] == [1, 3, 2]
    assert len(body) == json_bytes + batch.nbytes


@pytest.mark.parametrize("number", [0, 127, 128, 300, 16_777_216])
def test_whole_numbers_come_back_from_their_varint(number: int) -> None:
    assert bodies.read_fields(bodies.varint(1 << 3) + bodies.varint(number)) == [(1, number)]


def test_answer_with_other_values_is_refused_in_every_dialect() -> None:
    wrong = bodies.SUM + 1
    for y, is_right in ((bodies.SUM, True), (wrong, False)):
        answers = {
            bodies.check_json: json.dumps({"y": y.tolist()}).encode(),
            bodies.check_ms_grpc: bodies.ms_reply(y),
            bodies.check_tail: b"head" + y.tobytes(),
            bodies.check_oip_grpc: bodies.field(6, y.tobytes()),
        }
        for make_check, answer in answers.items():
            if is_right:
                make_check(bodies.SUM)(answer)
            else:
                with pytest.raises(AssertionError):
                    make_check(bodies.SUM)(answer)


def test_typed_contents_are_read_like_raw_ones() -> None:
    contents = bodies.field(6, bodies.SUM.tobytes())
    output = bodies.field(1, b"y") + bodies.field(5, contents)
    bodies.check_oip_grpc(bodies.SUM)(bodies.field(5, output))


def test_cpu_use_between_two_looks() -> None:
    before = parse_cpu_times("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 2 3\n")
    assert before == CpuTimes(1_000, 850, 0)
    after = CpuTimes(1_200, 950, 20)
    assert usage_between(before, after) == pytest.approx((0.4, 0.1))


def test_triton_batches_only_if_the_model_may() -> None:
    assert "dynamic_batching" in config_text(W1)
    assert "dynamic_batching" not in config_text(W1.without_batching())
    assert "count: 16" in config_text(W4)
