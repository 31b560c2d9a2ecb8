"""Serve the explorer: load a model, and answer a page on this computer."""

from __future__ import annotations

import atexit
import secrets
import socket
import sys
import threading
import webbrowser
from concurrent.futures import CancelledError
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ...api.loading import load_model
from ...api.model import Model
from ...graph.synonyms import read_synonyms
from ...system.arguments import plain_arguments
from ...system.errors import InputError
from ...system.processes import end_if_unwanted, stop_by
from .open_model import OpenModel

if TYPE_CHECKING:
    from uvicorn import Server

HOST = "127.0.0.1"  #: the page listens on this computer only
_NAMES = (HOST, "localhost")  # hosts in an address by which a browser finds this computer
_TOKEN_BYTES = 32
_LONGEST_END = 30.0  # seconds that the end of the program waits for a thread


@dataclass
class Explorer:
    """A page that is being served, until `close`.

    Attributes:
        address: address of the page, with its token.
        port: port on this computer.

    Example:
        >>> page = cdd.explore(model, browser=False)
        >>> page.address.endswith("/"), page.port > 0
        (True, True)
        >>> page.close()
    """

    address: str
    port: int

    def __post_init__(self) -> None:
        self._server: Server | None = None
        self._thread = threading.Thread()
        self._closed = threading.Event()

    def wait(self) -> None:
        """Serve the page until Ctrl-C, which `close` follows."""
        try:
            while self._thread.is_alive():
                self._thread.join(1.0)
        finally:
            self.close()

    def close(self) -> None:
        """Stop serving. Answers that are being computed are dropped."""
        self._closed.set()
        if self._server is not None:
            self._server.should_exit = self._server.force_exit = True
            self._thread.join(5.0)

    def __enter__(self) -> Explorer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@plain_arguments
def explore(
    model_dir: str | Path | Model,
    *,
    port: int = 0,
    browser: bool = True,
    synonyms: str | Path | None = None,
) -> Explorer:
    """Show a trained model as a page in the browser: search, ranked lists, reasons, a map.

    The page is for this computer only: it listens on 127.0.0.1, and its address has a secret token.
    It loads nothing from other computers.

    Args:
        model_dir: model directory that `cdd embed` has written; in Python also a loaded model.
        port: port of the page on this computer (0: any free port).
        browser: open the page in the browser.
        synonyms: file with other names of nodes: .csv or .tsv with the columns name and id.

    Returns:
        The page, which is served in a thread until `close` is called. It is also a context manager.

    Raises:
        InputError: a file is missing or damaged, the port is in use, or the packages of the extra
            `explore` are not installed.

    Example:
        >>> with cdd.explore(model, browser=False) as page:
        ...     print(page.address.split(":")[1])
        //127.0.0.1
    """
    _check_packages()
    listening = _listen(port)  # before the model is loaded, so that an error comes at once
    try:
        model = model_dir if isinstance(model_dir, Model) else load_model(model_dir)
        opened = OpenModel(model, read_synonyms(synonyms, model.graph.nodes))
        opened.prepare()
        explorer = _serve(opened, listening)
    except BaseException:
        listening.close()
        raise
    preparing = threading.Thread(target=_prepare, args=(opened, explorer._closed), daemon=True)
    preparing.start()
    atexit.register(_end, explorer._closed, preparing)  # it must not keep the model
    if browser:  # in a thread, because a browser within the terminal runs until it is left
        threading.Thread(target=webbrowser.open, args=(explorer.address,), daemon=True).start()
    return explorer


def _prepare(opened: OpenModel, closed: threading.Event) -> None:
    """Prepare, beside the page, what takes long at first: the lists of diseases, and reports."""
    from .answers import Answers

    stop_by(closed)
    try:
        opened.prepare_diseases()
        end_if_unwanted()
        Answers(opened).prepare_report()
    except CancelledError:
        pass
    except RuntimeError as error:  # the program ends while its threads rank the diseases
        if "interpreter shutdown" not in str(error):
            raise


def _end(closed: threading.Event, preparing: threading.Thread) -> None:
    """Wait, when the program ends, for the thread that prepares.

    Python would end that thread within native code, which aborts the process.
    """
    closed.set()
    preparing.join(_LONGEST_END)


def _serve(opened: OpenModel, listening: socket.socket) -> Explorer:
    """Answer the page of a model on a socket, in a thread."""
    import uvicorn

    from .app import make_app
    from .guard import Guard
    from .models import Models

    port, token = listening.getsockname()[1], secrets.token_urlsafe(_TOKEN_BYTES)
    hosts = [f"{name}:{port}" for name in _NAMES]
    app = Guard(make_app(Models(opened)), token, hosts)
    config = uvicorn.Config(
        app,
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,  # the addresses have the token
        server_header=False,
        proxy_headers=False,  # no other program may say where a request comes from
    )
    explorer = Explorer(f"http://{HOST}:{port}/{token}/", port)
    explorer._server = uvicorn.Server(config)
    explorer._thread = threading.Thread(
        target=explorer._server.run, args=([listening],), name="explorer", daemon=True
    )
    explorer._thread.start()
    return explorer


def _listen(port: int) -> socket.socket:
    """Return a socket that listens on this computer; requests wait until the server starts.

    Raises:
        InputError: the port is in use, or the user may not use it.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if sys.platform != "win32":  # a port that was just closed is free; one in use stays in use
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise InputError(f"port (got {port}) cannot be used: {error.strerror}") from None
    return listening


def _check_packages() -> None:
    for name in ("starlette", "uvicorn"):
        if find_spec(name) is None:
            raise InputError(
                f"cdd explore needs the package {name}, which is not installed: "
                "pip install starlette uvicorn"
            )
