"""Parsers of one value of a setting: from its text, or ValueError with what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from workers.servable.version_policy import VersionPolicy, parse_version_policy

DEVICE_ID_MAX = 65_535


@dataclass(frozen=True)
class ServableChoice:
    """A servable by name, and which of its versions run; without a word the newest."""

    name: str
    versions: VersionPolicy = field(default_factory=VersionPolicy)


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """A parser of whole numbers in a range."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a whole number") from None
        if not least <= number <= most:
            raise ValueError(f"{number} is not in {least}..{most}")
        return number

    return parse


def one_of(allowed: tuple[str, ...]) -> Callable[[str], str]:
    """A parser of words. Case is ignored, as MindSpore Serving does for device types."""

    def parse(text: str) -> str:
        for value in allowed:
            if text.lower() == value.lower():
                return value
        raise ValueError(f"{text!r} is not one of {', '.join(allowed)}")

    return parse


def read_text(text: str) -> str:
    """Any text but the empty one."""
    if not text:
        raise ValueError("is empty")
    return text


def read_path(text: str) -> Path:
    """An absolute path; `~` is the home directory."""
    return Path(read_text(text)).expanduser().absolute()


def read_device_ids(text: str) -> tuple[int, ...]:
    """Numbers with commas, each once."""
    parse = whole_number(0, DEVICE_ID_MAX)
    ids = tuple(parse(item.strip()) for item in text.split(","))
    if len(set(ids)) != len(ids):
        raise ValueError(f"{text!r} names a device twice")
    return ids


def read_servable(text: str) -> ServableChoice:
    """`NAME`, or `NAME:VERSIONS` with a version policy."""
    name, colon, versions = text.partition(":")
    if not name or "/" in name:
        raise ValueError(f"{text!r} is not NAME or NAME:VERSIONS")
    return ServableChoice(name, parse_version_policy(versions)) if colon else ServableChoice(name)


def read_unix_address(text: str) -> str:
    """`unix:PATH`."""
    if not text.startswith("unix:") or text == "unix:":
        raise ValueError(f"{text!r} is not unix:PATH (a port is set by --grpc-port)")
    return text


def read_bus_address(text: str) -> str:
    """A ZeroMQ address of TCP or of a socket file."""
    scheme, _, rest = text.partition("://")
    if scheme not in ("tcp", "ipc") or not rest:
        raise ValueError(f"{text!r} is not tcp://HOST:PORT or ipc://PATH")
    return text
