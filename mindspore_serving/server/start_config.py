"""`ServableStartConfig`: which servable a start script wants, and on which devices."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mindspore_serving.server.devices import check_device_type
from protocol.parameter_checks import check_bytes, check_int, check_ints, check_str

DEC_MODES = ("AES-GCM", "AES-CBC")

#: AES-128, AES-192 and AES-256.
_DEC_KEY_BYTES = (16, 24, 32)

#: More processes than this for one servable is taken for a mistake.
PARALLEL_WORKERS_MAX = 64


class ServableStartConfig:
    """One servable, one version of it, and the devices it runs on; checked and read-only.

    servable_directory: holds the directory `servable_name`; a relative path begins at the
        directory of the start script, not at the current one.
    device_ids: one worker each; without Ascend or GPU these are slots on the CPU.
    version_number: 0 is the newest version directory.
    device_type: "Ascend", "GPU", "CPU" (case ignored) or None, which is the best that is there.
    num_parallel_workers: workers in all, if more than devices; 0 without devices is one worker.
    dec_key, dec_mode: decrypt the models of this version.
    """

    def __init__(
        self,
        servable_directory: str,
        servable_name: str,
        device_ids: int | Sequence[int] | None = None,
        version_number: int = 0,
        device_type: str | None = None,
        num_parallel_workers: int = 0,
        dec_key: bytes | None = None,
        dec_mode: str = "AES-GCM",
    ) -> None:
        """Raises: RuntimeError for the first parameter that is wrong; nothing is looked up yet."""
        self._servable_directory = absolute_path(
            check_str("servable_directory", servable_directory)
        )
        self._servable_name = check_str("servable_name", servable_name)
        self._version_number = check_int("version_number", version_number, 0)
        workers = check_int("num_parallel_workers", num_parallel_workers, 0, PARALLEL_WORKERS_MAX)
        self._dec_key = None if dec_key is None else check_dec_key(dec_key)
        self._dec_mode = check_dec_mode(dec_mode)
        self._device_ids = () if device_ids is None else check_ints("device_ids", device_ids, 0)
        self._device_type = _check_device_type(device_type)
        check_device_type(self._device_type, device_type, servable_name)
        self._num_parallel_workers = workers if workers or self._device_ids else 1

    @property
    def servable_directory(self) -> str:
        """Absolute path of the directory that holds the servable's."""
        return self._servable_directory

    @property
    def servable_name(self) -> str:
        """Name of the servable and of its directory."""
        return self._servable_name

    @property
    def version_number(self) -> int:
        """The version asked for; 0 is the newest."""
        return self._version_number

    @property
    def device_type(self) -> str:
        """`ascend`, `gpu`, `cpu` or `none`."""
        return self._device_type

    @property
    def device_ids(self) -> tuple[int, ...]:
        """The devices, in the order given."""
        return self._device_ids

    @property
    def num_parallel_workers(self) -> int:
        """Workers in all, where that is more than there are devices."""
        return self._num_parallel_workers

    @property
    def dec_key(self) -> bytes | None:
        """The key of the models, or None."""
        return self._dec_key

    @property
    def dec_mode(self) -> str:
        """`AES-GCM` or `AES-CBC`."""
        return self._dec_mode


def absolute_path(path: str) -> str:
    """Resolve a relative path against the directory of the running script's real path."""
    # An interactive interpreter has no script; what is typed there begins at the current directory.
    script = sys.argv[0] if sys.argv else ""
    base = Path(script).resolve().parent if script else Path.cwd()
    # Not `resolve`: the name of a linked directory is the name that its servables go by.
    return os.path.normpath(base / path)


def check_dec_key(key: object) -> bytes:
    """Return `key` if it can be one of AES. Raises: RuntimeError."""
    checked = check_bytes("dec_key", key)
    if len(checked) not in _DEC_KEY_BYTES:
        raise RuntimeError(f"Parameter 'dec_key' length {len(checked)} expected to be 16, 24 or 32")
    return checked


def check_dec_mode(mode: object) -> str:
    """Return `mode` if MindSpore knows it. Raises: RuntimeError."""
    checked = check_str("dec_mode", mode)
    if checked not in DEC_MODES:
        raise RuntimeError("Parameter 'dec_mode' expected to be 'AES-GCM' or 'AES-CBC'")
    return checked


def _check_device_type(device_type: object) -> str:
    if device_type is None:
        return "none"
    checked = check_str("device_type", device_type)
    if checked.lower() not in ("ascend", "gpu", "cpu", "none"):
        raise RuntimeError(
            f"Unsupported device type '{checked}', only support 'Ascend', 'GPU', 'CPU' and None, "
            "case ignored"
        )
    return checked.lower()
