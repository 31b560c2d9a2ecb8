"""Downloads from a server that cuts connections, ignores ranges and sends other bytes."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from test_cli import cdd

from clinical_drug_discovery.lib import fetch
from clinical_drug_discovery.lib.fetch import fetch_optimuskg, fetch_primekg
from clinical_drug_discovery.system import download
from clinical_drug_discovery.system.errors import InputError

CONTENT = bytes(range(256)) * 12_000  # 3 MB


class Server(ThreadingHTTPServer):
    """A Dataverse with two datasets, and the mistakes that a test asks for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = {7: CONTENT, 8: b"nodes" * 9, 9: b"edges" * 9}
        self.asked: list[str] = []  #: the header Range of each request for a file
        self.cut_after: list[int] = []  #: bytes of the next answers, whose connection then ends
        self.status: list[int] = []  #: of the next answers, without content
        self.ignores_range = False
        self.description: dict[str, Any] = {}  #: replaces fields of each file's description
        self.more = b""  #: sent after the file

    def describe(self, path: str) -> dict[str, Any]:
        names = {7: "kg.csv"} if "IXA7BM" in path else {8: "nodes.parquet", 9: "edges.parquet"}
        files = [{"dataFile": {"id": 1, "filename": "readme.txt", "filesize": 1}}]
        for number, name in names.items():
            content = self.content[number]
            checksum = {"type": "MD5", "value": hashlib.md5(content).hexdigest()}
            file = {"id": number, "filename": name, "filesize": len(content), "checksum": checksum}
            files.append({"dataFile": {**file, **self.description}})
        license_ = {"name": "CC0 1.0", "uri": "http://creativecommons.org/publicdomain/zero/1.0"}
        latest = {"versionNumber": 2, "versionMinorNumber": 1, "files": files, "license": license_}
        return {"status": "OK", "data": {"latestVersion": latest}}


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:  # the name that http.server calls
        server = self.server
        if "/api/datasets/" in self.path:
            text = json.dumps(server.describe(self.path)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
            return
        content = server.content[int(self.path.rsplit("/", 1)[1])] + server.more
        asked = self.headers.get("Range", "")
        server.asked.append(asked)
        if server.status:
            self.send_error(server.status.pop(0))
            return
        start = 0
        if asked and not server.ignores_range:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", span)
        else:
            self.send_response(200)
        if not server.more:  # a longer answer does not say how long it is
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + server.cut_after.pop(0) if server.cut_after else len(content)
        self.wfile.write(content[start:end])

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
        thread.start()
        monkeypatch.setattr(fetch, "SERVER", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(download, "_WAITS", (0.0, 0.0, 0.0))
        yield server
        server.shutdown()
        thread.join()


def parts(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.part"))


def test_a_cut_connection_is_continued(server: Server, tmp_path: Path) -> None:
    server.cut_after = [1_000_000, 3, 500_000]
    found = fetch_primekg(tmp_path / "new" / "kg.csv")
    assert server.asked == ["", "bytes=1000000-", "bytes=1000003-", "bytes=1500003-"]
    assert (tmp_path / "new" / "kg.csv").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["kg.csv"]
    (file,) = found["files"]
    assert (file["bytes"], file["downloaded"]) == (len(CONTENT), True)
    assert file["md5"] == hashlib.md5(CONTENT).hexdigest()
    assert found["license"].startswith("CC0 1.0")
    assert (found["doi"], found["version"]) == ("doi:10.7910/DVN/IXA7BM", "2.1")


def test_the_same_command_continues_after_a_failure(server: Server, tmp_path: Path) -> None:
    server.cut_after = [2_000_000, 0, 0, 0, 0]
    with pytest.raises(InputError, match=r"stopped at 2,000,000 of 3,072,000 bytes.*same command"):
        fetch_primekg(tmp_path / "kg.csv")
    assert [path.stat().st_size for path in parts(tmp_path)] == [2_000_000]
    assert not (tmp_path / "kg.csv").exists()
    server.cut_after, server.asked = [], []
    fetch_primekg(tmp_path / "kg.csv")
    assert server.asked == ["bytes=2000000-"]
    assert (tmp_path / "kg.csv").read_bytes() == CONTENT
    # Complete now, so the file is not asked for again.
    (file,) = fetch_primekg(tmp_path / "kg.csv")["files"]
    assert not file["downloaded"]
    assert server.asked == ["bytes=2000000-"]


def test_a_part_of_another_version_is_not_continued(server: Server, tmp_path: Path) -> None:
    server.cut_after = [2_000_000, 0, 0, 0, 0]
    with pytest.raises(InputError, match="stopped at"):
        fetch_primekg(tmp_path / "kg.csv")
    server.content[7], server.cut_after, server.asked = CONTENT[::-1], [], []
    fetch_primekg(tmp_path / "kg.csv")
    assert server.asked == [""]
    assert (tmp_path / "kg.csv").read_bytes() == CONTENT[::-1]


def test_a_server_that_ignores_ranges_is_read_from_the_beginning(
    server: Server, tmp_path: Path
) -> None:
    server.ignores_range, server.cut_after = True, [1_000_000]
    fetch_primekg(tmp_path / "kg.csv")
    assert server.asked == ["", "bytes=1000000-"]
    assert (tmp_path / "kg.csv").read_bytes() == CONTENT


def test_a_server_that_never_sends_the_whole_file_is_given_up(
    server: Server, tmp_path: Path
) -> None:
    server.ignores_range, server.cut_after = True, [600_000, 500_000] * 9
    with pytest.raises(InputError, match="stopped at"):
        fetch_primekg(tmp_path / "kg.csv")
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"filesize": 3_072_001}, "has 3072000 bytes, but its description says 3072001"),
        ({"checksum": {"type": "MD5", "value": "0" * 32}}, "has the MD5 .* instead of 000000"),
        ({"checksum": {"type": "MD5", "value": "../../kg"}}, "does not have the file kg.csv"),
        ({"filename": "other.csv"}, "does not have the file kg.csv, but other.csv"),
        ({"id": "x"}, "does not describe a dataset"),
    ],
)
def test_another_size_or_checksum_is_refused(
    server: Server, tmp_path: Path, description: dict[str, Any], message: str
) -> None:
    server.description = description
    with pytest.raises(InputError, match=message):
        fetch_primekg(tmp_path / "kg.csv")
    assert list(tmp_path.iterdir()) == []


def test_too_many_bytes_are_refused(server: Server, tmp_path: Path) -> None:
    server.more = b"x" * 2**21
    with pytest.raises(InputError, match="sends more than the 3,072,000 bytes"):
        fetch_primekg(tmp_path / "kg.csv")
    assert list(tmp_path.iterdir()) == []


def test_a_busy_server_is_asked_again_and_a_refusal_is_not(server: Server, tmp_path: Path) -> None:
    server.status = [503]
    fetch_primekg(tmp_path / "kg.csv")
    server.status, server.asked = [404, 200], []
    with pytest.raises(InputError, match="the server answers 404"):
        fetch_primekg(tmp_path / "other.csv")
    assert server.asked == [""]


def test_another_file_is_replaced_only_if_asked(server: Server, tmp_path: Path) -> None:
    (tmp_path / "kg.csv").write_text("mine")
    with pytest.raises(InputError, match=r"output_csv .* is another file; --overwrite"):
        fetch_primekg(tmp_path / "kg.csv")
    assert (tmp_path / "kg.csv").read_text() == "mine"
    assert server.asked == []
    fetch_primekg(tmp_path / "kg.csv", overwrite=True)
    assert (tmp_path / "kg.csv").read_bytes() == CONTENT


def test_two_files_of_a_dataset_and_the_command(server: Server, tmp_path: Path) -> None:
    result = cdd("fetch", "optimuskg", "--output", tmp_path / "optimuskg")
    assert result.exit_code == 0, result.output
    names = {path.name for path in (tmp_path / "optimuskg").iterdir()}
    assert names == {"nodes.parquet", "edges.parquet"}
    assert "License: CC0 1.0" in result.stdout
    assert f"--edges {tmp_path / 'optimuskg'} " in result.stdout
    assert [file["downloaded"] for file in fetch_optimuskg(tmp_path / "optimuskg")["files"]] == [
        False, False,
    ]  # fmt: skip


def test_a_server_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server() as server:
        port = server.server_port  # closed in the next line
    monkeypatch.setattr(fetch, "SERVER", f"http://127.0.0.1:{port}")
    result = cdd("fetch", "primekg", "--output", tmp_path / "kg.csv")
    assert result.exit_code == 2
    assert "Connection refused" in result.stderr
    assert list(tmp_path.iterdir()) == []
