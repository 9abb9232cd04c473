"""docs/PROTOCOL.md says what the code does: every table is compared with it."""

from __future__ import annotations

import re
from pathlib import Path

import msgpack

from broker import mdp_door
from docs.generate_tables import generated
from protocol import control, group, mdp, native, status
from protocol import head as heads
from protocol.values import DTYPES
from tests.broker.helpers import broker_with_worker, dispatched, ready

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "PROTOCOL.md").read_text()


def table_behind(text: str) -> list[list[str]]:
    """The cells of the first table behind a text, without its heading rows."""
    lines = DOCUMENT[DOCUMENT.index(text) :].splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith("|---")) + 1
    rows = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_the_head_table_gives_the_struct_of_the_code() -> None:
    rows = table_behind("## 2. The head")
    fixed = [row for row in rows if row[0].isdigit() and row[1].isdigit()]
    letters = {"1": "B", "2": "H", "4": "I", "8": "Q", "16": "16s"}
    code = "!"
    for offset, size, field, _ in fixed:
        assert int(offset) == sum_of_sizes(fixed, field), field
        code += "2s" if field == "magic" else "8s" if field == "span id" else letters[size]
    assert code == heads.FIXED.format
    assert f'struct.Struct("{heads.FIXED.format}")' in DOCUMENT
    assert sum(int(row[1]) for row in fixed) == heads.FIXED_BYTES


def sum_of_sizes(rows: list[list[str]], field: str) -> int:
    """Where a field must begin: behind all that come before it."""
    total = 0
    for _, size, name, _ in rows:
        if name == field:
            return total
        total += int(size)
    raise AssertionError(field)


def test_the_offsets_that_the_broker_slices_are_those_of_the_table() -> None:
    offsets = {row[2]: int(row[0]) for row in table_behind("## 2. The head") if row[0].isdigit()}
    assert offsets["flags"] == heads.FLAGS_OFFSET
    assert offsets["dialect"] == heads.DIALECT_OFFSET
    assert offsets["status"] == heads.STATUS_OFFSET
    assert offsets["request id"] == heads.REQUEST_ID_OFFSET
    assert offsets["budget_ms"] == heads.BUDGET_OFFSET
    assert offsets["instance count"] == heads.INSTANCE_COUNT_OFFSET
    assert offsets["body frames"] == heads.BODY_FRAMES_OFFSET
    assert offsets["service size"] == heads.SERVICE_SIZE_OFFSET


def test_commands_flags_and_dialects_are_those_of_the_code() -> None:
    commands = {int(number): name for number, name, *_ in table_behind("Commands:")}
    flags = {int(number): name for number, name, *_ in table_behind("Flags:")}
    dialects = {int(number): name for number, name, *_ in table_behind("Dialects:")}
    assert commands == heads.COMMANDS
    assert flags == heads.FLAGS
    assert dialects == heads.DIALECTS


def test_the_keys_of_control_messages_are_those_of_the_code() -> None:
    keys = {
        command: set(re.findall(r"`(\w+)` (?:str|int|bool|list|map)", text))
        for command, text in table_behind("## 3. Control messages")
    }
    assert keys["READY"] == {*control.Ready._fields, *control.Device._fields, "tensors"}
    for kind in (control.Welcome, control.Heartbeat, control.Drain, control.Disconnect):
        assert keys[kind.__name__.upper()] == set(kind._fields)
    assert keys["LOST"] == set(control.Lost._fields)
    assert keys["RETIRE"] == set(control.Retire._fields)
    assert keys["SHARE"] == set(control.Share._fields)


def test_the_messages_of_a_group_are_those_of_the_code() -> None:
    rows = table_behind("## 10. Groups of ranks")
    assert {int(number): name for number, name, *_ in rows} == group.COMMANDS
    for number, _, _, text in rows:
        keys = re.findall(r"`(\w+)` (?:str|int|bool|list)", text)
        assert tuple(keys) == group.KINDS[int(number)]._fields
    assert f"magic `{group.MAGIC.decode()}`, the version {group.VERSION} and" in DOCUMENT


def mdp_frames(cell: str) -> list[bytes]:
    """The frames in a cell of the table of variants, without service and body."""
    frames = []
    for quoted in re.findall(r"`([^`]*)`", cell):
        is_byte = re.fullmatch(r"\d\d", quoted)
        frames.append(bytes.fromhex(quoted) if is_byte else quoted.strip('"').encode())
    return frames


def test_the_variants_and_keys_of_mdp_are_those_of_the_code() -> None:
    for name, request, reply in table_behind("## 11. Clients that speak"):
        sent, got = mdp_frames(request), mdp_frames(reply)
        envelope = sent[:1] if not sent[0] else []
        call = mdp.read_call((b"r", *envelope), [*sent[len(envelope) :], b"add", b"body"])
        service = [b"add"] if "service" in reply else []
        assert [*call.caller.address[1:], *call.caller.prefix] == [*got, *service], name
    keys = {row[0].strip("`") for row in table_behind("Body frame 0 of a request is a msgpack map")}
    assert keys == mdp.OPTIONS


def mdp_examples() -> list[list[bytes]]:
    """The messages that §11 writes out, as lists of frames."""
    section = DOCUMENT[DOCUMENT.index("## 11. Clients that speak") :]
    messages: list[list[bytes]] = []
    for block in re.findall(r"(?:^    .*\n)+", section, re.MULTILINE):
        frames: list[bytes] = []
        for line in block.splitlines():
            size, colon, content = line.partition(":")
            if colon and size.strip().isdigit():
                frames.append(b"")
            else:
                content = line
            for text, code in re.findall(r'"([^"]*)"|([0-9a-f]+)', content):
                frames[-1] += text.encode() if text else bytes.fromhex(code)
        sizes = re.findall(r"^ +(\d+):", block, re.MULTILINE)
        assert [len(frame) for frame in frames] == list(map(int, sizes))
        messages.append(frames)
    return messages


def test_the_messages_of_mdp_that_are_written_out_are_what_the_broker_reads_and_sends() -> None:
    request, reply, failed = mdp_examples()
    core = broker_with_worker()
    core.receive_from_worker(b"w1", ready("slot1", generation=2), 0)
    mdp_door.receive(core, (b"r", b""), request[1:], 0)
    ((_, ticket, body),) = dispatched(core)
    assert msgpack.unpackb(body)["instances"] == [{"x1": 1.5, "x2": 2.5}]
    head = heads.Head(heads.REPLY, request_id=ticket, body_frames=1)
    answer = native.pack_meta({"instances": [{"y": 4.0}]})
    core.receive_from_worker(b"w1", [heads.pack(head), answer], 0)
    mdp_door.receive(core, (b"r", b""), [request[1], b"none", *request[3:]], 0)
    sent = [
        [*caller.address[1:], *mdp.encode_reply(caller, parts)]
        for caller, parts in core.outbox.take()[0]
    ]
    assert sent == [reply, failed]


def test_the_dtypes_are_those_of_the_code() -> None:
    (listed,) = re.findall(r"`dtype` is one of `([^`]*)`", DOCUMENT)
    assert listed.split() == list(DTYPES)


def test_the_tables_of_reasons_and_limits_are_generated_from_the_code() -> None:
    assert generated(DOCUMENT) == DOCUMENT, "run: python docs/generate_tables.py"


def test_the_codes_of_open_inference_protocol_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "open-inference-protocol.md").read_text()
    rows = re.findall(r"^\| (`[^|]*) \| (\w+) \| (\d+) \| (yes|no) \|$", text, re.MULTILINE)
    told = {
        name: (code, int(http), again == "yes")
        for names, code, http, again in rows
        for name in re.findall(r"`(\w+)`", names)
    }
    assert told == {
        name: (status.GRPC_NAMES[reason.grpc], reason.http, reason.retry)
        for name, reason in status.REASONS.items()
    }
