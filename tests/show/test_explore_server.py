"""The server of the explorer: who gets an answer, and how it ends."""

from __future__ import annotations

import hashlib
import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

import clinical_drug_discovery as cdd
from clinical_drug_discovery.show.explore import serve
from clinical_drug_discovery.show.explore.serve import Explorer, explore


@pytest.fixture(scope="module")
def page(model_dir: Path) -> Iterator[Explorer]:
    with explore(model_dir, browser=False) as explorer:
        yield explorer


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: Message


def ask(
    page: Explorer,
    path: str = "",
    *,
    token: str | None = None,
    method: str = "GET",
    body: str | None = None,
    **headers: str,
) -> Answer:
    """Send one request; `path` follows the token of the address or another one."""
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=60)
    start = urlsplit(page.address).path if token is None else token
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, start + path, body, given)
    response = connection.getresponse()
    answered = Answer(response.status, response.read(), response.headers)
    connection.close()
    return answered


def answer(page: Explorer, path: str, **given: Any) -> Any:
    response = ask(page, path, **given)
    assert response.status == 200, response.body
    return json.loads(response.body)


def test_only_the_address_with_the_token_is_answered(page: Explorer) -> None:
    token = urlsplit(page.address).path
    assert len(token) > 40
    assert ask(page).status == 200
    other = token[:-2] + ("a" if token[-2] != "a" else "b") + "/"
    for wrong in ("/", other, token[:-1], token.upper(), "/%C3%A9/", "//"):
        for path in ("", "api/home", "main.js"):
            response = ask(page, path, token=wrong)
            assert response.status in ({403} if wrong != token[:-1] or not path else {403, 404})
            assert b"Clinical" not in response.body


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil:{}"])
def test_another_host_is_refused(page: Explorer, host: str) -> None:
    assert ask(page, "api/home", Host=host.format(page.port)).status == 403
    assert ask(page, "api/home", Host=f"localhost:{page.port}").status == 200


def test_two_hosts_are_refused(page: Explorer) -> None:
    path = urlsplit(page.address).path
    lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{page.port}", "Host: evil.example", "", ""]
    with socket.create_connection(("127.0.0.1", page.port), timeout=10) as connection:
        connection.sendall("\r\n".join(lines).encode())
        assert connection.recv(100).split()[1] in (b"400", b"403")


@pytest.mark.parametrize("path", ["", "api/home", "api/nothing", "main.js", "nowhere", "../"])
def test_every_answer_forbids_the_outside(page: Explorer, path: str) -> None:
    headers = ask(page, path, Origin="http://evil.example").headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert not [name for name in headers if name.lower().startswith("access-control")]
    assert "Set-Cookie" not in headers


def test_the_page_is_on_this_computer_only(page: Explorer) -> None:
    with socket.socket() as other:  # the same port on another address of this computer is free
        other.bind(("127.0.0.2", page.port))


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("api/node?node=x", "node (got 'x') must be a whole number"),
        ("api/node?node=99999999999", "must be a whole number"),
        ("api/node?node=99999", "must be the node_index of a node"),
        ("api/node", "node (got '') must be"),
        ("api/home?model=m7", "Add the node again"),
        ("api/neighbors?node=1&shown=1,x", "shown must be whole numbers"),
        ("api/similar?node=1&type=planet", "type (got 'planet') must be one of"),
        ("api/map?type=planet", "the graph contains no nodes of type 'planet'"),
    ],
)
def test_wrong_questions_get_the_rule(page: Explorer, path: str, rule: str) -> None:
    response = ask(page, path)
    assert response.status == 400
    assert rule in json.loads(response.body)["error"]


def test_what_the_form_may_send(page: Explorer) -> None:
    json_type = {"Content_Type": "application/json"}
    assert ask(page, "api/add", method="POST", body="{}").status == 415
    assert ask(page, "api/add", method="POST", body="{", **json_type).status == 400
    assert ask(page, "api/add", method="POST", body="[" * 10**5, **json_type).status == 400
    assert ask(page, "api/add", method="POST", body=" " * 2**21, **json_type).status == 413
    assert ask(page, "api/add").status == 404
    assert ask(page, "api/home", method="POST", body="{}", **json_type).status == 405


def test_old_models_with_new_nodes_are_dropped(page: Explorer) -> None:
    facts = [{"relation": "drug_protein", "node": find(page, "HMGCR")}]
    body = json.dumps({"name": "Newstatin", "type": "drug", "facts": facts})
    given: dict[str, str] = {"method": "POST", "body": body, "Content_Type": "application/json"}
    names = [answer(page, "api/add", **given)["model"] for _ in range(3)]
    assert ask(page, f"api/home?model={names[0]}").status == 400
    assert [one["name"] for one in answer(page, f"api/home?model={names[2]}")["new"]] == [
        "Newstatin"
    ]


def find(page: Explorer, name: str) -> int:
    return int(answer(page, f"api/search?text={name}")[0]["node"])


def test_many_questions_at_once_are_answered_as_one_after_the_other(page: Explorer) -> None:
    drug, disease = find(page, "Donepezil"), find(page, "asthma")
    paths = [
        f"api/drugs?node={disease}", f"api/diseases?node={drug}", f"api/node?node={drug}",
        f"api/why?drug={drug}&disease={disease}", f"api/similar?node={drug}&type=drug",
        f"api/neighbors?node={drug}&shown={drug}", "api/search?text=dis", "api/home",
    ]  # fmt: skip
    expected = [answer(page, path) for path in paths]
    with ThreadPoolExecutor(16) as threads:
        for found in threads.map(lambda _: [answer(page, path) for path in paths], range(6)):
            assert found == expected


def test_a_port_in_use_is_an_error(page: Explorer, model_dir: Path) -> None:
    with pytest.raises(cdd.InputError, match=rf"port \(got {page.port}\) cannot be used: "):
        explore(model_dir, port=page.port, browser=False)


def test_after_the_end_nothing_listens(model_dir: Path) -> None:
    with explore(model_dir, browser=False) as explorer:
        assert ask(explorer).status == 200
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", explorer.port))


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command(model_dir: Path, stop: signal.Signals) -> None:
    command = [sys.executable, "-m", "clinical_drug_discovery", "explore", "--no-browser"]
    words = [*command, "--model-dir", str(model_dir), "--json"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, **pipes) as process:
        record = json.loads(process.stdout.readline())  # type: ignore[union-attr]  # a pipe
        status = ask(Explorer(**record)).status
        process.send_signal(stop)
        _, errors = process.communicate(timeout=30)
    assert (status, process.returncode) == (200, 128 + stop)
    assert errors.splitlines()[-1].startswith("stopped by")


def test_a_thread_that_computes_does_not_abort_the_end(model_dir: Path) -> None:
    """Python ends threads when they come back from native code, and C++ aborts the process then."""
    begin = (
        "import sys, time, torch\n"
        "from clinical_drug_discovery.show.explore.open_model import OpenModel\n"
        "def compute(self):\n"
        "    end, x = time.monotonic() + 2, torch.ones(300, 300)\n"
        "    print('computing', flush=True)\n"
        "    while time.monotonic() < end: x.mm(x)\n"
        "OpenModel.prepare_diseases = compute\n"
    )
    in_python = "import clinical_drug_discovery as cdd\ncdd.explore(sys.argv[3], browser=False)\n"
    on_command_line = "from clinical_drug_discovery.__main__ import main\nmain()\n"
    words = ["explore", "--model-dir", str(model_dir), "--no-browser"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    for script, code in ((in_python, 0), (on_command_line, 128 + signal.SIGTERM)):
        with subprocess.Popen([sys.executable, "-c", begin + script, *words], **pipes) as process:
            while process.stdout.readline() != "computing\n":  # type: ignore[union-attr]  # a pipe
                assert process.poll() is None
            if code:
                process.terminate()
            _, errors = process.communicate(timeout=30)
        assert process.returncode == code, errors


def test_a_directory_that_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(cdd.InputError, match="model_dir"):
        explore(tmp_path / "nowhere", browser=False)


def test_the_library_has_the_recorded_checksums() -> None:
    vendor = Path(serve.__file__).parent / "static" / "vendor"
    record = json.loads((vendor / "vendor.json").read_text())
    found = {
        path.name.removesuffix(".min.js"): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in vendor.glob("*.js")
    }
    assert found == {name: entry["sha256"] for name, entry in record.items()}
