"""Which kinds of device this machine offers, found without loading any inference library.

Loading MindSpore in the start script would bind that process to a device, so the kernel's device
nodes are looked at instead. The worker still opens the device itself and reports what it got.
"""

from __future__ import annotations

import re
from pathlib import Path

_ASCEND_NODE = re.compile(r"davinci[0-9]+")
_GPU_NODE = re.compile(r"nvidia[0-9]+")

#: PCI vendor of Ascend, and the devices of the 910 family (910, 910B, 910C): one process each.
_ASCEND_VENDOR = "0x19e5"
_ASCEND_910 = ("0xd801", "0xd802", "0xd803")

#: What MindSpore calls the targets, by the lower-case name of a start configuration.
TARGETS = {"ascend": "Ascend", "gpu": "GPU", "cpu": "CPU", "none": None}


def available_device_types(device_directory: Path = Path("/dev")) -> tuple[str, ...]:
    """Kinds of device, the preferred first, as `ascend`, `gpu`, `cpu`; the CPU is always there."""
    names = [path.name for path in device_directory.iterdir()]
    types = []
    if any(_ASCEND_NODE.fullmatch(name) for name in names):
        types.append("ascend")
    if any(_GPU_NODE.fullmatch(name) for name in names):
        types.append("gpu")
    return (*types, "cpu")


def check_device_type(
    device_type: str,
    given: object,
    servable_name: str,
    device_directory: Path = Path("/dev"),
) -> None:
    """Raise RuntimeError, in MindSpore Serving's words, for a kind that is not here.

    device_type: `none`, or a lower-case kind. given: the same as the user wrote it.
    """
    available = available_device_types(device_directory)
    if device_type == "none" or device_type in available:
        return
    names = [f"'{name.capitalize()}'" for name in available]
    others = ", ".join(["None", *names[:-1]])
    supported = f"{others} or {names[-1]}"
    raise RuntimeError(
        f"The device type '{given}' of servable name {servable_name} is inconsistent with "
        f"current running environment, supported device type: {supported}"
    )


def may_share_devices(pci_directory: Path = Path("/sys/bus/pci/devices")) -> bool:
    """False on Ascend 910, where one device belongs to one process."""
    if not pci_directory.is_dir():
        return True
    return not any(_is_ascend_910(device) for device in pci_directory.iterdir())


def _is_ascend_910(device: Path) -> bool:
    try:
        vendor = (device / "vendor").read_text().strip().lower()
        number = (device / "device").read_text().strip().lower()
    except OSError:
        # A device that was unplugged while we looked, or that hides its numbers, is none.
        return False
    return vendor == _ASCEND_VENDOR and number in _ASCEND_910
