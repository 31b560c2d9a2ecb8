"""Embeddings on disk: the same bits back, whole files or none."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from clinical_drug_discovery.models import embeddings_file as outputs
from clinical_drug_discovery.system.errors import InputError
from clinical_drug_discovery.system.files import atomic_path

NUM_NODES = 5_000


@pytest.fixture
def nodes(rng: np.random.Generator) -> pl.DataFrame:
    index = rng.permutation(2 * NUM_NODES)[:NUM_NODES]
    return pl.DataFrame(
        {
            "node_index": index,
            "node_id": [f"{i:06d}" for i in index],
            "node_type": ["drug", "disease"] * (NUM_NODES // 2),
            "node_name": [f'name, "{i}"' for i in index],
            "node_source": ["X"] * NUM_NODES,
        }
    )


@pytest.fixture
def embeddings(rng: np.random.Generator) -> torch.Tensor:
    values = rng.standard_normal((NUM_NODES, 7)).astype(np.float32)
    any_bits = rng.integers(0, 2**32, (NUM_NODES // 2, 7), dtype=np.uint32).view(np.float32)
    values[::2] = np.where(np.isfinite(any_bits), any_bits, 0)
    values[1] = [0.0, -0.0, 1e-45, 3.4028235e38, 1.0, 123456.0, 1e-5]
    return torch.from_numpy(values)


@pytest.mark.parametrize("chunk_rows", [1, 999, 1000, NUM_NODES - 1, NUM_NODES, None])
@pytest.mark.parametrize("suffix", outputs.SUFFIXES)
def test_round_trip_is_exact(
    tmp_path: Path,
    nodes: pl.DataFrame,
    embeddings: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
    chunk_rows: int | None,
) -> None:
    if chunk_rows == 1:  # wider than a chunk, and no file is as slow as one of single rows
        nodes, embeddings = nodes[:50], embeddings[:50]
    if chunk_rows is not None:
        monkeypatch.setattr(outputs, "_CHUNK_FLOATS", 7 * chunk_rows - (chunk_rows == 1))
    path = tmp_path / "new" / f"e{suffix}"
    assert outputs.write_embeddings(path, nodes, embeddings) == len(nodes)
    read, values = outputs.read_embeddings(path)
    order = nodes["node_index"].arg_sort()
    assert read.select(nodes.columns).equals(nodes[order])
    assert values.dtype == np.float32
    expected = embeddings.numpy()[order.to_numpy()]
    assert np.array_equal(values.view(np.uint32), expected.view(np.uint32))
    left = {p.name for p in path.parent.iterdir()}
    assert left == {path.name} | ({"e_index.csv"} if suffix == ".npy" else set())


def test_csv_is_what_it_says(tmp_path: Path, nodes: pl.DataFrame, embeddings: torch.Tensor) -> None:
    outputs.write_embeddings(tmp_path / "e.csv", nodes, embeddings)
    table = pl.read_csv(tmp_path / "e.csv", infer_schema=False)
    assert table.columns == list(outputs.COLUMNS)
    order = nodes["node_index"].arg_sort().to_numpy()
    for row in range(50):
        parsed = np.array(json.loads(table["embedding"][row]), np.float32)
        assert parsed.tobytes() == embeddings.numpy()[order[row]].tobytes()


def test_parquet_is_a_fixed_size_list(
    tmp_path: Path, nodes: pl.DataFrame, embeddings: torch.Tensor
) -> None:
    outputs.write_embeddings(tmp_path / "e.parquet", nodes, embeddings)
    schema = pl.read_parquet_schema(tmp_path / "e.parquet")
    assert schema["embedding"] == pl.Array(pl.Float32, 7)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("old")

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_written_through(
    tmp_path: Path, nodes: pl.DataFrame, embeddings: torch.Tensor
) -> None:
    target = tmp_path / "elsewhere" / "real.parquet"
    link = tmp_path / "e.parquet"
    link.symlink_to(target)
    outputs.check_output(link)
    for _ in range(2):  # the target is made, then replaced
        outputs.write_embeddings(link, nodes, embeddings)
        assert link.is_symlink()
        assert not target.is_symlink()
        assert len(outputs.read_embeddings(target)[0]) == NUM_NODES
    assert len(list(target.parent.iterdir())) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to catch")
def test_a_request_to_end_removes_what_is_unfinished(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from clinical_drug_discovery import cli\n"
        "from clinical_drug_discovery.system.files import atomic_path\n"
        "def write():\n"
        "    with atomic_path(Path(sys.argv[1])) as path:\n"
        "        sys.stdout.write('ready\\n'); sys.stdout.flush(); time.sleep(60)\n"
        "cli.make_app = lambda: write\n"
        "cli.main()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "e.csv")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert len(list(tmp_path.iterdir())) == 1
        process.terminate()
    assert process.returncode == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can forget a peak of memory")
@pytest.mark.parametrize("suffix", outputs.SUFFIXES)
def test_writing_copies_no_embeddings(tmp_path: Path, suffix: str) -> None:
    """Resident memory, for it counts what polars takes; a small file first, as a warm-up."""
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "import polars as pl, psutil, torch\n"
        "from clinical_drug_discovery.models.embeddings_file import write_embeddings\n"
        "from clinical_drug_discovery.system.machine import peak_memory_bytes\n"
        "def write(num_nodes):\n"
        "    index = torch.randperm(num_nodes, generator=torch.Generator().manual_seed(0))\n"
        "    text = [str(i) for i in index.tolist()]\n"
        "    names = ('node_id', 'node_name', 'node_type', 'node_source')\n"
        "    nodes = pl.DataFrame({'node_index': index.numpy(), **dict.fromkeys(names, text)})\n"
        "    values = torch.randn(num_nodes, 512)\n"
        "    Path('/proc/self/clear_refs').write_text('5')\n"
        "    before = psutil.Process().memory_info().rss\n"
        "    write_embeddings(Path(sys.argv[1]), nodes, values)\n"
        "    return (peak_memory_bytes() - before) / values.nbytes\n"
        "write(4_000)\n"
        "sys.stdout.write(str(write(60_000)))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / f"e{suffix}")]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    assert float(done.stdout) < 0.6, done.stdout


def test_outputs_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "d.csv").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "link.csv").symlink_to(tmp_path / "d.csv")
    for path, message in (
        (tmp_path / "link.csv", "is a directory"),
        (tmp_path / "e.xlsx", "must end in one of"),
        (tmp_path / "d.csv", "is a directory"),
        (tmp_path / "file" / "e.csv", "is a file"),
    ):
        with pytest.raises(InputError, match=message):
            outputs.check_output(path)
    outputs.check_output(tmp_path / "not" / "yet" / "there.csv")
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("e.csv", b""),
        ("e.csv", b"node_id,embedding\n1,[1.0]\n"),
        ("e.csv", b"node_id,node_name,node_type,embedding,node_index,node_source\n1,a,t,[x],1,s\n"),
        ("f.csv", b"node_id,node_name,node_type,embedding,node_index,node_source\n"
         b"1,a,t,[1.0],1,s\n2,b,t,\"[1.0,2.0]\",2,s\n"),
        ("e.parquet", b"PAR1"),
        ("e.npy", b"\x93NUMPY"),
        ("e.txt", b"x"),
    ],
)  # fmt: skip
def test_files_that_are_no_embeddings(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=name):
        outputs.read_embeddings(path)
