"""The launch document: what is read, and how a wrong one is named."""

import base64

import pytest

from workers.launch import Launch, LaunchError, read_launch

DOCUMENT = {
    "servable_directory": "/srv",
    "servable_name": "add",
    "version": 2,
    "version_asked": 0,
    "device_target": None,
    "device_id": 3,
    "backend": "numpy",
    "workers_address": "ipc:///run/w.ipc",
    "worker_id": "add/2/device3",
    "generation": 5,
    "dec_key": base64.b64encode(b"0123456789abcdef").decode(),
    "dec_mode": "AES-CBC",
    "parent_pid": 1,
    "batch_sizes": [8, 1, 8],
}


def test_a_document_becomes_a_checked_value():
    launch = read_launch(DOCUMENT | {"colour": "blue"})
    assert launch == Launch(
        servable_directory="/srv",
        servable_name="add",
        version=2,
        version_asked=0,
        device_target=None,
        device_id=3,
        backend="numpy",
        workers_address="ipc:///run/w.ipc",
        worker_id="add/2/device3",
        generation=5,
        dec_key=b"0123456789abcdef",
        dec_mode="AES-CBC",
        parent_pid=1,
        batch_sizes=(1, 8),
    )
    assert launch.service == "add/2"


def test_the_key_of_a_model_is_never_shown():
    assert "0123456789abcdef" not in repr(read_launch(DOCUMENT))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"servable_name": ""}, "key 'servable_name' of the launch document is '', not a text"),
        ({"servable_name": "a" * 300}, "service key of 302 B exceeds service_key_bytes_max 223"),
        ({"version": 0}, "key 'version' of the launch document is 0, not a number of at least 1"),
        ({"version": True}, "key 'version' of the launch document is True"),
        ({"device_id": -1}, "not a number of at least 0"),
        ({"device_target": 7}, "key 'device_target' of the launch document is 7, not a text"),
        ({"backend": "abacus"}, "is 'abacus', not one of mindspore, numpy"),
        ({"dec_mode": "ROT13"}, "is 'ROT13', not one of AES-GCM, AES-CBC"),
        ({"dec_key": "!"}, "key 'dec_key' of the launch document is not base64"),
        ({"batch_sizes": []}, "key 'batch_sizes' of the launch document is []"),
        ({"models": 3}, "key 'models' of the launch document is 3, not a map"),
        ({"models": {}}, "key 'producers_address' of the launch document is missing"),
        ({"device_id": "0"}, "key 'device_id' of the launch document is '0', not a number"),
        ({"batch_sizes": [0]}, "key 'batch_sizes' of the launch document is [0]"),
    ],
)
def test_a_wrong_key_is_named_with_its_value(changes, text):
    with pytest.raises(LaunchError) as error:
        read_launch(DOCUMENT | changes)
    assert text in str(error.value)


@pytest.mark.parametrize(
    "key", sorted(DOCUMENT.keys() - {"device_target", "dec_key", "batch_sizes"})
)
def test_a_missing_key_is_named(key):
    document = {name: value for name, value in DOCUMENT.items() if name != key}
    with pytest.raises(LaunchError, match=f"key '{key}' of the launch document is missing"):
        read_launch(document)


def test_an_extra_worker_has_no_device_and_is_told_what_others_have_loaded():
    launch = read_launch(
        DOCUMENT
        | {
            "device_id": None,
            "models": {"m.mindir": {"batch_sizes": [1]}},
            "producers_address": "ipc:///run/p.ipc",
        }
    )
    assert launch.device_id is None
    assert launch.models == {"m.mindir": {"batch_sizes": [1]}}
    assert launch.producers_address == "ipc:///run/p.ipc"
