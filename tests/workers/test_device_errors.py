"""Which texts of device errors say that the device may be free soon."""

import pytest

from workers.device_errors import is_busy


@pytest.mark.shows("R8")
@pytest.mark.parametrize(
    "text",
    [
        "aclrtSetDevice: open device 0 failed, runtime result = 507033",
        "set device 0 failed, errorCode = 507033.",
        "call aclrtSetDevice failed, ret[507033]. The details refer to 'Ascend Error Message'.",
        "EL0005: Resource_Busy, the resource is busy",
        "drv open failed, drvRet=DRV_ERROR_BUSY(13)",
        "open /dev/davinci0: Device or resource busy",
    ],
)
def test_a_device_that_somebody_holds_is_busy(text: str) -> None:
    assert is_busy(text)


@pytest.mark.parametrize(
    "text",
    [
        "device Ascend 9 was asked for, there are 8",
        "this MindSpore supports CPU here, not Ascend",
        "process 1507033 of 5070189 is gone",
        "the queue is busy",
        "aclrtSynchronizeStream failed: 507018",  # a kernel's fault, it may be the model's own
    ],
)
def test_other_errors_do_not_pass_by_themselves(text: str) -> None:
    assert not is_busy(text)
