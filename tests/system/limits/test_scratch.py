"""Arrays in files of a scratch directory leave nothing behind, and reserve their space."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from clinical_drug_discovery.system import disk
from clinical_drug_discovery.system.errors import InputError
from clinical_drug_discovery.system.files import WriteError
from clinical_drug_discovery.system.limits import scratch
from clinical_drug_discovery.system.limits.scratch import Scratch, check_scratch


def test_an_array_is_zeros_in_a_file_without_a_name(tmp_path: Path) -> None:
    opened = len(os.listdir("/dev/fd"))
    array = Scratch(tmp_path / "new" / "scratch").array(10_000)
    assert array.shape == (10_000,)
    assert not array.any()
    array[:] = 7
    made = Scratch(tmp_path)
    other = made.array(5_000)
    for any_order in (True, False):  # advice for other addresses is ignored
        made.expect([other.ctypes.data, array.ctypes.data, 0], any_order=any_order)
    assert (array == 7).all()
    assert not list((tmp_path / "new" / "scratch").iterdir())
    del array, other
    assert len(os.listdir("/dev/fd")) == opened


def test_the_pages_of_parts_are_read_ahead_and_no_others(tmp_path: Path) -> None:
    class Pages:
        asked: ClassVar[list[tuple[int, int]]] = []

        def __len__(self) -> int:
            return 9 * size + 10

        def madvise(self, option: int, start: int, length: int) -> None:
            assert option == mmap.MADV_WILLNEED
            self.asked.append((start, start + length))

    made, size = Scratch(tmp_path), mmap.PAGESIZE
    array = made.array(9 * size + 10)
    made._pages[array.ctypes.data] = pages = Pages()  # type: ignore[assignment] # records the calls
    starts = np.array([5, 100, 2 * size - 1, 6 * size, 9 * size])
    made.read_ahead(array.ctypes.data, starts, 10)
    assert pages.asked == [(0, 3 * size), (6 * size, 7 * size), (9 * size, 9 * size + 10)]
    made.read_ahead(array.ctypes.data + 1, starts, 10)  # another address
    made.read_ahead(array.ctypes.data, starts[:0], 10)
    assert len(pages.asked) == 3
    other = made.array(2 * size)
    made.read_ahead(other.ctypes.data, np.array([0, size]), size)  # the system takes the advice


def test_the_zeros_that_other_systems_write_reserve_the_same_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    monkeypatch.setattr(disk, "_ZEROS", memoryview(bytes(100)))
    handle = disk.reserve(tmp_path, 250)
    assert os.fstat(handle).st_size == 250
    os.close(handle)
    assert not Scratch(tmp_path).array(250).any()


def test_a_full_disk_is_an_error_that_names_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", fail, raising=False)
    opened = len(os.listdir("/dev/fd"))
    with pytest.raises(WriteError, match=rf"{tmp_path} cannot be written: No space left"):
        Scratch(tmp_path).array(10_000)
    assert not list(tmp_path.iterdir())
    assert len(os.listdir("/dev/fd")) == opened


def test_a_directory_is_checked_before_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"scratch_dir \(got .*file\) must be a directory"):
        check_scratch(tmp_path / "file")
    monkeypatch.setattr(scratch, "_file_system", lambda place: "ext4")
    assert check_scratch(tmp_path / "new") is None
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(scratch, "_file_system", lambda place: "tmpfs")
    assert "lies in memory (tmpfs)" in str(check_scratch(tmp_path / "new"))


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="only on Linux")
def test_the_file_system_of_a_path_is_known() -> None:
    assert scratch._file_system(Path("/proc")) == "proc"
    assert np.all([scratch._file_system(Path(place)) for place in ("/", "/dev")])
