"""The key of encrypted models, which comes in a file and goes nowhere but into a document."""

from __future__ import annotations

from pathlib import Path

from mindbus.config import ConfigError

DEC_KEY_SIZES = (16, 24, 32)


def read_dec_key(path: Path) -> bytes:
    """The key of encrypted models. A line end that an editor appended is not part of it.

    Raises: ConfigError; the text never shows the content.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"--dec-key-file {path}: {error.strerror}") from None
    if len(content) - 1 in DEC_KEY_SIZES and content.endswith(b"\n"):
        content = content[:-1]
    if len(content) not in DEC_KEY_SIZES:
        sizes = ", ".join(map(str, DEC_KEY_SIZES))
        raise ConfigError(
            f"--dec-key-file {path}: a key of {len(content)} B is not one of {sizes} B"
        )
    return content
