"""A file that was written is complete or as before, and a damaged file is refused."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from clinical_drug_discovery.system import disk, files
from clinical_drug_discovery.system.errors import InputError
from clinical_drug_discovery.system.files import (
    DamagedFileError,
    OtherVersionError,
    WriteError,
    atomic_path,
    check_writable,
    load_arrays,
    load_checksummed,
    save_arrays,
    save_checksummed,
    save_record,
    stored_checksum,
)

RECORD = {"name": "HGT", "sizes": [1, 2]}
TENSORS = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.tensor([7], dtype=torch.int64)}


@pytest.fixture
def checksummed(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_checksummed(path, 3, RECORD, TENSORS)
    return path


def test_arrays_are_pages_of_the_file_which_stays_as_it_is(checksummed: Path) -> None:
    save_checksummed(checksummed, 3, RECORD, {**TENSORS, "none": torch.zeros(0, 2)})
    content = checksummed.read_bytes()
    record, arrays = load_arrays(checksummed, 3)
    assert record == RECORD
    assert arrays["none"].shape == (0, 2)
    for name, tensor in TENSORS.items():
        assert arrays[name].dtype == tensor.numpy().dtype
        assert (arrays[name] == tensor.numpy()).all()
        assert not arrays[name].flags.owndata
        arrays[name][:] = 5
    assert checksummed.read_bytes() == content
    checksummed.unlink()  # as when a new file takes the name
    assert (arrays["a"] == 5).all()


def test_a_file_that_takes_the_name_while_arrays_are_loaded_changes_nothing(
    checksummed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped = files._mapped

    def replaced(*arguments: Any) -> Any:
        found = mapped(*arguments)
        with atomic_path(checksummed) as temporary:
            save_checksummed(temporary, 3, RECORD, {"a": torch.zeros(3, 4), "b": TENSORS["b"]})
        return found

    monkeypatch.setattr(files, "_mapped", replaced)
    assert (load_arrays(checksummed, 3)[1]["a"] == TENSORS["a"].numpy()).all()


def fail_in_the_middle(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half of the ne")
        raise RuntimeError("the power went out")


def test_a_failure_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="power"):
        fail_in_the_middle(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.csv"]


def test_a_failure_in_the_middle_leaves_no_new_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="power"):
        fail_in_the_middle(tmp_path / "new" / "file.csv")
    assert os.listdir(tmp_path / "new") == []


def test_an_interrupt_while_the_file_is_created_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = disk.create_temporary

    def interrupted(path: Path) -> None:
        create(path)
        raise KeyboardInterrupt

    monkeypatch.setattr(disk, "create_temporary", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "new.csv"):
        pytest.fail("the block must not run")
    assert not list(tmp_path.iterdir())


def test_until_the_end_the_old_file_is_there(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("old")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent  # a rename within one file system is atomic
        assert temporary.suffix == path.suffix
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["file.csv"]


def test_a_symbolic_link_is_written_through(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    with atomic_path(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert not target.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["link", "target"]


def test_a_file_has_the_permissions_that_open_would_give(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        with atomic_path(tmp_path / "file") as temporary:
            temporary.write_text("new")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_a_record_is_json(tmp_path: Path) -> None:
    save_record(tmp_path / "deep" / "stats.json", RECORD)
    assert json.loads((tmp_path / "deep" / "stats.json").read_text()) == RECORD


@pytest.mark.parametrize("inside", ["", "x/y"])
def test_a_directory_that_is_a_file_is_refused(tmp_path: Path, inside: str) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(InputError, match=rf"^model_dir \(got {path / inside}\) .* is a file$"):
        check_writable("model_dir", path / inside)
    output = path / inside / "e.csv"
    with pytest.raises(InputError, match=rf"^output \(got {output}\) must lie in a .* is a file$"):
        check_writable("output", output.parent, output)


def test_a_directory_may_be_missing_and_is_not_made(tmp_path: Path) -> None:
    check_writable("model_dir", tmp_path / "x" / "y")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="no permission"):
        check_writable("model_dir", tmp_path / "x")


def test_a_checksummed_file_gives_back_its_content(checksummed: Path) -> None:
    record, tensors = load_checksummed(checksummed, 3)
    assert record == RECORD
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == TENSORS[name].dtype
        assert torch.equal(tensor, TENSORS[name])


def test_every_flipped_byte_is_found(checksummed: Path) -> None:
    """In the header, in the checksum, in the record and in the tensors."""
    content = checksummed.read_bytes()
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1
        checksummed.write_bytes(damaged)
        try:
            record, tensors = load_checksummed(checksummed, 3)
        except (DamagedFileError, OtherVersionError):
            continue
        # Bytes that JSON and safetensors ignore, such as padding, may change; the content may not.
        assert record == RECORD, at
        assert tensors.keys() == TENSORS.keys(), at
        assert all(torch.equal(tensors[name], TENSORS[name]) for name in tensors), at


def test_one_flipped_bit_of_a_tensor_is_refused(checksummed: Path) -> None:
    content = bytearray(checksummed.read_bytes())
    content[-1] ^= 1
    checksummed.write_bytes(content)
    with pytest.raises(DamagedFileError, match="checksum is wrong"):
        load_checksummed(checksummed, 3)


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_truncated_file_is_refused(checksummed: Path, length: int) -> None:
    checksummed.write_bytes(checksummed.read_bytes()[:length])
    with pytest.raises(DamagedFileError):
        load_checksummed(checksummed, 3)


def test_a_file_of_another_version_is_named(checksummed: Path) -> None:
    with pytest.raises(OtherVersionError, match="version 3, not 4"):
        load_checksummed(checksummed, 4)


def test_a_missing_file_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_checksummed(tmp_path / "none", 3)


def test_the_checksum_is_that_of_the_content(checksummed: Path, tmp_path: Path) -> None:
    for name, tensors in (("same", TENSORS), ("other", TENSORS | {"b": torch.tensor([8])})):
        save_checksummed(tmp_path / name, 3, RECORD, tensors)
    assert stored_checksum(tmp_path / "same") == stored_checksum(checksummed)
    assert stored_checksum(tmp_path / "other") != stored_checksum(checksummed)


def test_a_safetensors_file_has_the_bytes_of_the_library(tmp_path: Path) -> None:
    tensors = TENSORS | {
        "half": torch.ones(2, 0, dtype=torch.float16),
        "number": torch.tensor(3.5, dtype=torch.float64),
        "bytes": torch.arange(7, dtype=torch.uint8),
        "yes": torch.tensor([True]),
    }
    save_file(tensors, tmp_path / "library", {"record": '{"a": "é"}'})
    save_arrays(tmp_path / "own", tensors, {"record": '{"a": "é"}'})
    assert (tmp_path / "own").read_bytes() == (tmp_path / "library").read_bytes()


@pytest.mark.parametrize("copied", [1, 50, 10_000])
def test_views_are_saved_as_copies_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: int
) -> None:
    monkeypatch.setattr(files, "_COPIED_BYTES", copied)
    table = torch.arange(60.0).reshape(10, 6)
    views = {
        "columns": table[:, 1:4],
        "turned": table.t(),
        "one": table[:, 5:],
        "no": table[:0, 1:],
    }
    save_checksummed(tmp_path / "views", 3, RECORD, views)
    save_checksummed(
        tmp_path / "copies",
        3,
        RECORD,
        {k: v.clone(memory_format=torch.contiguous_format) for k, v in views.items()},
    )
    assert (tmp_path / "views").read_bytes() == (tmp_path / "copies").read_bytes()


def test_a_file_is_flushed_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real_flush, real_replace = os.fsync, os.replace

    def flush(handle: int) -> None:
        name = os.readlink(f"/proc/self/fd/{handle}")
        calls.append("directory" if Path(name).is_dir() else "file")
        real_flush(handle)

    def replace(source: Path, target: Path) -> None:
        calls.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", replace)
    save_record(tmp_path / "stats.json", RECORD)
    assert calls == ["file", "rename", "directory"]


def test_a_full_disk_is_one_line_with_the_file_and_the_free_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(disk, "flush", full)
    monkeypatch.setattr(disk, "free_bytes", lambda directory: 1234)
    path = tmp_path / "stats.json"
    with pytest.raises(WriteError) as caught:
        save_record(path, RECORD)
    expected = f"{path} cannot be written: No space left on device (1,234 bytes are free)"
    assert str(caught.value) == expected
    assert os.listdir(tmp_path) == []
