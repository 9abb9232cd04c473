"""What a MindIR file says of its inputs and outputs, and how a bad file is refused."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.mindspore_process import MindSporeProcess

pytestmark = pytest.mark.mindspore

KEY = b"sixteen bytes ok"


@pytest.fixture(scope="module")
def mindspore_process() -> Iterator[MindSporeProcess]:
    with MindSporeProcess() as process:
        yield process


@pytest.fixture(scope="module")
def directory(
    mindspore_process: MindSporeProcess, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    directory = tmp_path_factory.mktemp("mindir")
    mindspore_process.run(export_models, directory)
    return directory


def export_models(directory: Path) -> None:
    import mindspore

    from tests.workers import mindspore_models as models

    export, zeros, any_size = models.export, models.zeros, models.any_size
    fixed = export(models.Add(), zeros(2, 2), zeros(2, 2), path=directory / "add.mindir")
    export(
        models.Add(),
        any_size(None, 3, dtype=mindspore.float16),
        any_size(None, None, dtype=mindspore.float16),
        path=directory / "dynamic.mindir",
    )
    export(models.Scale(), zeros(dtype="int32"), path=directory / "scalar.mindir")
    export(models.Nested(), any_size(None, 2), path=directory / "nested.mindir")
    bfloat16 = mindspore.Tensor(shape=[2], dtype=mindspore.bfloat16)
    export(models.Identity(), bfloat16, path=directory / "bfloat16.mindir")
    export(models.Identity(), any_size(-2), path=directory / "any_rank.mindir")
    for mode in ("AES-GCM", "AES-CBC"):
        path = directory / f"{mode}.mindir"
        export(models.Scale(), zeros(2), path=path, enc_key=models.KEY, enc_mode=mode)
    (directory / "garbled.mindir").write_bytes(bytes(range(255, 0, -1)) * 20)
    (directory / "empty.mindir").write_bytes(b"")
    (directory / "cut.mindir").write_bytes(fixed.read_bytes()[:300])


def signature(*arguments: Any) -> Any:
    from workers.backends.mindir import read_signature

    return [
        [(spec.name, spec.dtype.name, spec.shape) for spec in specs]
        for specs in read_signature(*arguments)
    ]


def refusal(*arguments: Any) -> str:
    from workers.backends.mindir import MindirError

    try:
        found = signature(*arguments)
    except MindirError as error:
        return str(error)
    raise AssertionError(f"no error, but {found}")


def test_names_dtypes_and_shapes_are_those_of_the_exported_net(
    mindspore_process: MindSporeProcess, directory: Path
) -> None:
    inputs, outputs = mindspore_process.run(signature, directory / "add.mindir")
    assert inputs == [("x1", "float32", (2, 2)), ("x2", "float32", (2, 2))]
    assert [spec[1:] for spec in outputs] == [("float32", (2, 2))]


def test_a_dynamic_dimension_reads_minus_one(
    mindspore_process: MindSporeProcess, directory: Path
) -> None:
    inputs, outputs = mindspore_process.run(signature, directory / "dynamic.mindir")
    assert inputs == [("x1", "float16", (-1, 3)), ("x2", "float16", (-1, -1))]
    assert [spec[1:] for spec in outputs] == [("float16", (-1, 3))]


def test_a_scalar_has_no_dimensions(mindspore_process: MindSporeProcess, directory: Path) -> None:
    inputs, outputs = mindspore_process.run(signature, directory / "scalar.mindir")
    assert inputs == [("x", "int32", ())]
    assert [spec[1:] for spec in outputs] == [("int32", ())]


def test_nested_outputs_are_listed_leaf_by_leaf(
    mindspore_process: MindSporeProcess, directory: Path
) -> None:
    _, outputs = mindspore_process.run(signature, directory / "nested.mindir")
    assert [name.rpartition(":")[2].partition(".")[2] for name, _, _ in outputs] == [
        "0",
        "1.0",
        "1.1",
        "2",
        "3",
    ]
    assert [spec[1:] for spec in outputs] == [
        ("float32", (-1, 2)),
        ("float32", (-1, 2)),
        ("float32", (-1, 2)),
        ("float32", (2,)),
        ("int64", ()),
    ]


@pytest.mark.parametrize("mode", ["AES-GCM", "AES-CBC"])
def test_an_encrypted_file_is_read_with_its_key(
    mindspore_process: MindSporeProcess, directory: Path, mode: str
) -> None:
    inputs, _ = mindspore_process.run(signature, directory / f"{mode}.mindir", KEY, mode)
    assert inputs == [("x", "float32", (2,))]


@pytest.mark.parametrize(
    ("file", "key", "text"),
    [
        ("AES-GCM", None, "is encrypted and no dec_key is given"),
        ("AES-CBC", None, "is encrypted and no dec_key is given"),
        ("AES-GCM", b"0" * 16, "cannot be decrypted with this dec_key and dec_mode 'AES-GCM'"),
        ("AES-CBC", KEY, "cannot be decrypted with this dec_key and dec_mode 'AES-GCM'"),
        ("add", KEY, "is not encrypted, but a dec_key is given"),
        ("garbled", None, "is not a MindIR model, or it is damaged or cut short"),
        ("cut", None, "is not a MindIR model, or it is damaged or cut short"),
        ("empty", None, "is not a MindIR model: it has no graph"),
        ("missing", None, "cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(
    mindspore_process: MindSporeProcess,
    directory: Path,
    file: str,
    key: bytes | None,
    text: str,
) -> None:
    path = directory / f"{file}.mindir"
    assert mindspore_process.run(refusal, path, key) == f"model file '{path}' {text}"


def refusal_of_an_encrypted_file(content: bytes, path: Path) -> str:
    """What is said of a file that is decrypted to this content."""
    from mindspore._c_expression import _encrypt

    path.write_bytes(_encrypt(content, len(content), KEY, len(KEY), "AES-CBC"))
    return refusal(path, KEY, "AES-CBC")


def test_what_is_decrypted_to_no_model_is_called_a_wrong_key(
    mindspore_process: MindSporeProcess, tmp_path: Path
) -> None:
    # With AES-CBC a wrong key fits the padding now and then, and gives bytes of any kind.
    path = tmp_path / "model.mindir"
    text = mindspore_process.run(refusal_of_an_encrypted_file, bytes(range(256)), path)
    reason = "cannot be decrypted with this dec_key and dec_mode 'AES-CBC'"
    assert text == f"model file '{path}' {reason}"


def test_a_directory_is_not_a_model_file(
    mindspore_process: MindSporeProcess, directory: Path
) -> None:
    text = mindspore_process.run(refusal, directory)
    assert text == f"model file '{directory}' cannot be read: Is a directory"


def test_a_dtype_that_no_client_can_send_is_refused(
    mindspore_process: MindSporeProcess, directory: Path
) -> None:
    path = directory / "bfloat16.mindir"
    text = mindspore_process.run(refusal, path)
    assert text == f"model file '{path}': 'x' has dtype BFLOAT16, which cannot be served"


def test_a_rank_that_is_not_known_is_refused(
    mindspore_process: MindSporeProcess, directory: Path
) -> None:
    path = directory / "any_rank.mindir"
    text = mindspore_process.run(refusal, path)
    expected = f"model file '{path}': 'x' has a rank known only at run time"
    assert text == f"{expected}, which cannot be served"


def test_a_path_with_blanks_and_umlauts_is_read(
    mindspore_process: MindSporeProcess, directory: Path, tmp_path: Path
) -> None:
    path = tmp_path / "my müdel.mindir"
    shutil.copyfile(directory / "add.mindir", path)
    inputs, _ = mindspore_process.run(signature, path)
    assert inputs == [("x1", "float32", (2, 2)), ("x2", "float32", (2, 2))]
