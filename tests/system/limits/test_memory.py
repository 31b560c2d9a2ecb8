"""Every limit on the memory of a process counts: control groups at any depth, and `ulimit`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.graph.reading import room
from clinical_drug_discovery.system.errors import InputError
from clinical_drug_discovery.system.limits import memory
from clinical_drug_discovery.system.limits.memory import available_memory_bytes

MIB = 2**20
V2 = "31 23 0:28 {visible} {mount} rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "35 31 0:32 {visible} {mount} rw,relatime - cgroup cgroup rw,memory"
NAMES = {
    V1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    V2: ("memory.max", "memory.current", "inactive_file"),
}


def machine(
    root: Path, version: str, path: str, limits: dict[str, tuple[str, int, int]], **mount: str
) -> list[int]:
    """Return the room in each group, on a machine whose files are made up below `root`.

    Args:
        root: an empty folder.
        version: the line of mountinfo, and so the version of control groups.
        path: the group of this process.
        limits: for a folder below the mount: limit, bytes in use, bytes that can be reclaimed.
        **mount: `visible` and `mount` of the line, if not the whole hierarchy at /sys/fs/cgroup.
    """
    place = {"visible": "/", "mount": "/sys/fs/cgroup", **mount}
    process = root / "proc/self"
    process.mkdir(parents=True)
    line = f"0::{path}" if version == V2 else f"12:cpu,memory:{path}\n1:name=systemd:/\n0::/"
    (process / "cgroup").write_text(f"{line}\n")
    (process / "mountinfo").write_text(
        f"22 1 8:1 / / rw - ext4 /dev/sda rw\n{version.format(**place)}\n"
    )
    limit, usage, reclaimable = NAMES[version]
    for folder, (most, used, cached) in limits.items():
        group = root / place["mount"].replace("\\040", " ").lstrip("/") / folder
        group.mkdir(parents=True, exist_ok=True)
        (group / limit).write_text(f"{most}\n")
        (group / usage).write_text(f"{used}\n")
        (group / "memory.stat").write_text(f"anon 5\n{reclaimable} {cached}\n")
    return [room.num_bytes for room in memory._group_limits(root)]


@pytest.mark.parametrize("version", [V1, V2], ids=["version 1", "version 2"])
def test_groups_at_any_depth_count(tmp_path: Path, version: str) -> None:
    unlimited = "max" if version == V2 else "9223372036854771712"
    groups = {
        "slurm": ("1000", 900, 300),  # 300 of the 900 bytes are a cache of files
        "slurm/job_7": (unlimited, 800, 0),
        "slurm/job_7/step_0": ("2000", 500, 0),
        "slurm/job_8": ("1", 1, 0),  # the group of another process
    }
    found = machine(tmp_path, version, "/slurm/job_7/step_0", groups)
    assert found[0] == 1500
    assert min(found) == 400


def test_a_limit_below_the_use_leaves_nothing(tmp_path: Path) -> None:
    assert machine(tmp_path, V2, "/a", {"a": ("1000", 5000, 10)}) == [0]


def test_memory_high_counts_too(tmp_path: Path) -> None:
    group = tmp_path / "sys/fs/cgroup/a"
    group.mkdir(parents=True)
    (group / "memory.high").write_text("700\n")
    assert machine(tmp_path, V2, "/a", {"a": ("max", 100, 0)}) == [600]


@pytest.mark.parametrize("version", [V1, V2], ids=["version 1", "version 2"])
def test_a_container_sees_a_part_of_the_hierarchy(tmp_path: Path, version: str) -> None:
    """Without a namespace, the path of the group starts with the visible part of the hierarchy."""
    groups = {"": ("1000", 100, 0), "worker": ("800", 100, 0)}
    place = {"visible": "/docker/abc", "mount": r"/sys/fs/c\040group"}
    assert machine(tmp_path / "1", version, "/docker/abc/worker", groups, **place) == [700, 900]
    assert machine(tmp_path / "2", version, "/docker/abc", groups, **place) == [900]
    # A group outside of the visible part, as a namespace shows it.
    assert machine(tmp_path / "3", version, "/../other", groups) == [900]


def test_a_machine_without_groups_has_no_such_limits(tmp_path: Path) -> None:
    assert list(memory._group_limits(tmp_path)) == []


def test_the_free_memory_counts_and_the_limit_is_named() -> None:
    assert available_memory_bytes() > 0
    code = (
        "import resource, psutil\n"
        "from clinical_drug_discovery.system.limits.memory import available_memory\n"
        "size = psutil.Process().memory_info().vms + 300 * 2**20\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size, size))\n"
        "room = available_memory()\n"
        "assert 250 * 2**20 < room.num_bytes <= 300 * 2**20, room\n"
        "assert 'RLIMIT_AS' in room.limit, room\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.fixture
def group() -> Iterator[Path]:
    """A real control group with a limit of 200 MiB below the group of this process."""
    parents = [top / group_path for top, group_path in _real_groups()]
    for parent in parents:
        made = parent / f"cdd_test_{os.getpid()}"
        with suppress(OSError):
            made.mkdir()
            try:
                limit = "memory.limit_in_bytes"
                limit = limit if (made / limit).exists() else "memory.max"
                (made / limit).write_text(str(200 * MIB))
                yield made
                return
            finally:
                made.rmdir()
    pytest.skip("this user may not make control groups with a limit on memory")


def _real_groups() -> Iterator[tuple[Path, Path]]:
    for folder, top, _ in memory._groups(Path("/")):
        yield top, folder.relative_to(top)


def test_a_real_control_group_counts(group: Path) -> None:
    code = (
        "import os, sys, pathlib\n"
        "pathlib.Path(sys.argv[1], 'cgroup.procs').write_text(str(os.getpid()))\n"
        "from clinical_drug_discovery.system.limits.memory import available_memory\n"
        "room = available_memory()\n"
        "assert 0 < room.num_bytes <= 200 * 2**20, room\n"
        "assert sys.argv[1] in room.limit, room\n"
    )
    subprocess.run([sys.executable, "-c", code, str(group)], check=True, timeout=60)


def test_a_file_that_cannot_be_read_in_the_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kg.csv"
    path.write_bytes(b"x" * 10 * MIB)
    rooms = iter([memory.Room(size * MIB, "the rest of a group") for size in (80, 20)])
    monkeypatch.setattr(room, "available_memory", lambda: next(rooms))
    with pytest.raises(InputError, match=r"kg\.csv"):  # it is not a graph
        read_graph(path)
    text = r"kg\.csv: reading needs about 0\.07 GiB, but the rest of a group has 0\.02 GiB"
    with pytest.raises(InputError, match=text):
        read_graph(path)


def test_a_run_in_a_group_that_is_too_small_is_refused(group: Path, tmp_path: Path) -> None:
    """The group has room for the libraries, but not for the training, which would be killed."""
    limit = next(group.glob("memory.limit_in_bytes"), group / "memory.max")
    limit.write_text(str(480 * MIB))
    (tmp_path / "kg.csv").write_text(
        "relation,display_relation,x_index,x_id,x_type,x_name,x_source,y_index,y_id,y_type,y_name,"
        "y_source\ntreats,treats,0,D1,drug,a,X,1,S1,disease,b,X\n"
    )
    code = (
        "import os, sys, pathlib\n"
        "pathlib.Path(sys.argv.pop(1), 'cgroup.procs').write_text(str(os.getpid()))\n"
        "from clinical_drug_discovery.__main__ import main\n"
        "main()\n"
    )
    flags = ["embed", "hgt", "--edges", "kg.csv", "--output", "e.csv", "--no-cache"]
    done = subprocess.run(
        [sys.executable, "-c", code, str(group), *flags, "--device", "cpu"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "the default memory_budget (70% of the rest of" in done.stderr
    assert str(group) in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["kg.csv"]
