"""Embeddings on disk: the same bits back, whole files or none."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from clinical_drug_discovery.models import embeddings_file as outputs
from clinical_drug_discovery.models.read_embeddings import read_embeddings
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
    read, values = read_embeddings(path)
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
        assert len(read_embeddings(target)[0]) == NUM_NODES
    assert len(list(target.parent.iterdir())) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to catch")
def test_a_request_to_end_removes_what_is_unfinished(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from clinical_drug_discovery import cli\n"
        "from clinical_drug_discovery.system.files import atomic_path\n"
        "from clinical_drug_discovery.system.interrupts import end_loading\n"
        "def write():\n"
        "    end_loading()\n"
        "    with atomic_path(Path(sys.argv[1])) as path:\n"
        "        sys.stdout.write('ready\\n'); sys.stdout.flush(); time.sleep(60)\n"
        "cli.make_app = lambda words: write\n"
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
        read_embeddings(path)


SMALL_NODES = pl.DataFrame(
    {
        "node_index": [3, 5, 8],
        "node_id": ["5000", "12", "7"],
        "node_type": ["disease", "drug", "drug"],
        "node_name": ["asthma", "a, b", "c"],
        "node_source": ["MONDO", "DrugBank", "DrugBank"],
    }
)
SMALL_VALUES = np.array([[0.1, -2e-7], [3.0, 4.5], [1e20, 0.3]], np.float32)
HEADER = "node_id,node_name,node_type,embedding,node_index,node_source\n"


def saved_again(path: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Path:
    """A file of embeddings that another program has changed, as CSV or Parquet."""
    outputs.write_embeddings(path.with_suffix(".parquet"), SMALL_NODES, torch.tensor(SMALL_VALUES))
    table = change(pl.read_parquet(path.with_suffix(".parquet")))
    (table.write_parquet if path.suffix == ".parquet" else table.write_csv)(path)
    return path


def text(template: str, number: Callable[[float], str] = repr) -> Callable[[pl.DataFrame], Any]:
    """Write each embedding as text, as `str` does for lists and arrays."""
    cells = [template.format(*map(number, row.astype(float).tolist())) for row in SMALL_VALUES]
    return lambda table: table.with_columns(embedding=pl.Series(cells))


LISTS = pl.List(pl.Float64)
FORMS: dict[str, tuple[str, Callable[[pl.DataFrame], pl.DataFrame]]] = {
    "list": (".csv", text("[{}, {}]")),
    "array": (".csv", text("[{}  {}]")),
    "array over two lines": (".csv", text("[ {}\n  {}]")),
    "list of numpy's numbers": (".csv", text("[np.float32({}), np.float32({})]")),
    "semicolons": (".csv", text("{};{}")),
    "column of row numbers": (
        ".csv",
        lambda table: text("[{},{}]")(table.with_row_index("Unnamed: 0")).with_columns(extra=1),
    ),
    "floats instead of whole numbers": (
        ".csv",
        lambda table: text("[{},{}]")(table).with_columns(
            pl.col("node_index").cast(pl.Float64), pl.col("node_id").cast(pl.Float64)
        ),
    ),
    "lists of float64": (".parquet", lambda table: table.cast({"embedding": LISTS})),
    "arrays of float64": (
        ".parquet",
        lambda table: table.cast({"embedding": pl.Array(pl.Float64, 2)}),
    ),
    "text in Parquet": (".parquet", text("[{}, {}]")),
    "numbers and categories": (
        ".parquet",
        lambda table: table.with_columns(
            pl.col("node_id").cast(pl.Int32),
            pl.col("node_index").cast(pl.Float64),
            pl.col("node_type").cast(pl.Categorical),
            __index_level_0__=pl.lit(1),
        ),
    ),
    "another order of rows": (".parquet", lambda table: table.reverse()),
}


@pytest.mark.parametrize("form", FORMS)
def test_embeddings_that_were_saved_again_are_read(tmp_path: Path, form: str) -> None:
    suffix, change = FORMS[form]
    nodes, values = read_embeddings(saved_again(tmp_path / f"again{suffix}", change))
    order = nodes["node_index"].arg_sort()
    assert nodes[order].equals(SMALL_NODES.select(nodes.columns))
    assert values[order.to_numpy()].tobytes() == SMALL_VALUES.tobytes()


@pytest.mark.parametrize(
    ("suffix", "change", "message"),
    [
        (
            ".csv",
            lambda table: text("[{},{}]")(table).with_columns(
                node_name=pl.Series(["asthma", None, "c"])
            ),
            r"row 3: node_name .* pandas reads names such as NA as missing.*keep_default_na",
        ),
        (".csv", text("[{},...,{}]"), r"row 2: embedding must be a list of"),
        (
            ".csv",
            lambda table: table.with_columns(embedding=pl.Series(["[1,2]", "[1,2]", "[1]"])),
            r"row 4: embedding must be a list of 2",
        ),
        (
            ".csv",
            lambda table: table.with_columns(embedding=pl.Series(["[1,2]", "[1,nan]", "[1,2]"])),
            r"row 3: NaN, infinity or a gap",
        ),
        (
            ".parquet",
            lambda table: table.with_columns(node_index=pl.Series([3, 5, 3])),
            r"row 3: node_index \(got 3\) must be a whole number that no other row has",
        ),
        (
            ".parquet",
            lambda table: table.with_columns(node_index=pl.Series([3.0, 5.5, 8.0])),
            r"row 2: node_index \(got 5.5\)",
        ),
        (".parquet", lambda table: table.head(0), "must have at least one row"),
        (".parquet", lambda table: table.drop("node_type"), "must have the columns node_id"),
        (".parquet", lambda table: table.with_columns(embedding=pl.lit(1.0)), "embedding"),
    ],
)
def test_what_is_ambiguous_is_refused_with_its_row(
    tmp_path: Path, suffix: str, change: Callable[[pl.DataFrame], pl.DataFrame], message: str
) -> None:
    path = saved_again(tmp_path / f"again{suffix}", change)
    with pytest.raises(InputError, match=message):
        read_embeddings(path)


def test_an_empty_source_survives(tmp_path: Path) -> None:
    """Sources are optional in some formats; pandas saves an empty text as a gap."""
    path = tmp_path / "e.csv"
    path.write_text(HEADER + '1,a,t,"[1.0]",1,\n2,b,t,"[2.0]",2,\n')
    nodes, _ = read_embeddings(path)
    assert nodes["node_source"].to_list() == ["", ""]
    path.write_text(HEADER + '1,a,t,"[1.0]",1,s\n2,b,t,"[2.0]",2,\n')
    with pytest.raises(InputError, match=r"row 3: node_source"):
        read_embeddings(path)
