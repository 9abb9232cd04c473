"""JSON lines as they arrive."""

import pytest

from workers.supervisor.json_lines import LINE_BYTES_MAX, LineError, LineReader, encode_line


def test_a_line_is_given_once_it_is_complete() -> None:
    reader = LineReader()
    assert reader.receive(b'{"sta') == []
    assert reader.receive(b'te":"ready"}\n{"a"') == [{"state": "ready"}]
    assert reader.receive(b":1}\n\n") == [{"a": 1}]


def test_what_is_encoded_is_read_again() -> None:
    content = {"text": "line\nbreak", "number": 1, "nothing": None}
    assert LineReader().receive(encode_line(content)) == [content]


@pytest.mark.parametrize(
    ("line", "text"),
    [(b"nonsense\n", "is not JSON"), (b"[1]\n", "is not a JSON object"), (b"\xff\n", "not JSON")],
)
def test_a_line_that_is_no_object_is_an_error(line: bytes, text: str) -> None:
    with pytest.raises(LineError, match=text):
        LineReader().receive(line)


def test_a_line_without_end_is_an_error_at_its_limit() -> None:
    reader = LineReader()
    assert reader.receive(b"x" * LINE_BYTES_MAX) == []
    with pytest.raises(LineError, match=f"exceeds line_bytes_max {LINE_BYTES_MAX}"):
        reader.receive(b"x")
