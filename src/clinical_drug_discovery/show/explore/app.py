"""The addresses of the page: its files, and the answers as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ...models.embeddings_file import without_formulas
from ...system.errors import InputError
from ...system.log import current_part
from .answers import Choice
from .models import FIRST, Asked, Models
from .new_node import relations_of

_MOST_BYTES = 1 << 20  # of the new node that the form sends
_MOST = 2**31 - 1
_EXPORTS = {
    "csv": "text/csv; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
_MOST_ROWS = 10_000

#: A question to a model, as a function of the model and the parameters of the address.
Question = Callable[[Asked, "Parameters"], Any]


class Parameters:
    """The parameters of an address, with checks."""

    def __init__(self, request: Request) -> None:
        self._given = request.query_params

    def text(self, name: str, default: str = "") -> str:
        """Return a text."""
        return str(self._given.get(name, default))

    def texts(self, name: str) -> list[str]:
        """Return all values of a parameter."""
        return [str(one) for one in self._given.getlist(name)]

    def number(self, name: str, default: int | None = None, most: int = _MOST) -> int:
        """Return a whole number of at least 0.

        Raises:
            InputError: it is missing, or it is not such a number.
        """
        text = self.text(name, "" if default is None else str(default))
        if not (text.isascii() and text.isdigit() and len(text) < 11 and int(text) <= most):
            raise InputError(f"{name} (got {text!r}) must be a whole number of at most {most:,}")
        return int(text)

    def numbers(self, name: str) -> list[int]:
        """Return whole numbers that commas separate.

        Raises:
            InputError: one of them is not a whole number.
        """
        given = self.text(name).split(",")[:500]
        if not all(one.isascii() and one.isdigit() and len(one) < 11 for one in given if one):
            raise InputError(f"{name} must be whole numbers, separated by commas")
        return [int(one) for one in given if one]

    def choice(self) -> Choice:
        """Return the choices above a ranked list."""
        names = ("include_known", "hide_contraindicated")
        given = {name: self.text(name) == "1" for name in names}
        return Choice(**given, popularity=self.text("popularity", "1") == "1")


QUESTIONS: dict[str, Question] = {
    "home": lambda asked, p: asked.answers.home() | {"new": asked.new},
    "search": lambda asked, p: asked.answers.search(p.text("text"), p.texts("type") or None),
    "node": lambda asked, p: asked.answers.node(p.number("node")),
    "facts": lambda asked, p: asked.answers.facts(
        p.number("node"),
        p.text("relation"),
        p.text("type"),
        p.number("start"),
        p.number("stop"),
        nearest=p.text("nearest", "1") == "1",
    ),
    "drugs": lambda asked, p: asked.answers.drugs(
        p.number("node"), p.number("top", 25, _MOST_ROWS), p.choice()
    ),
    "diseases": lambda asked, p: asked.answers.diseases(
        p.number("node"), p.number("top", 25, _MOST_ROWS), p.choice()
    ),
    "why": lambda asked, p: asked.answers.why(p.number("drug"), p.number("disease"), p.choice()),
    "similar": lambda asked, p: asked.answers.similar(
        p.number("node"), p.text("type"), p.number("top", 20, _MOST_ROWS)
    ),
    "neighbors": lambda asked, p: asked.answers.neighbors(
        p.number("node"), p.numbers("shown"), p.number("limit", 8, 50)
    ),
    "name": lambda asked, p: asked.opened.describe([asked.opened.row(p.number("node"))])[0],
    "relations": lambda asked, p: relations_of(asked.opened, p.text("type")),
}


def make_app(models: Models) -> Starlette:
    """Return the application that answers the page. `Guard` must protect it."""

    def answer(request: Request) -> Response:
        question = QUESTIONS.get(request.path_params["question"])
        if question is None:
            raise HTTPException(404)
        asked = models.get(request.query_params.get("model", FIRST))
        return _json(question(asked, Parameters(request)))

    def positions(request: Request) -> Response:
        asked = models.get(request.query_params.get("model", FIRST))
        node_type = request.query_params.get("type", "")
        return Response(asked.maps.positions(node_type), media_type="application/octet-stream")

    def export(suffix: str, request: Request) -> Response:
        asked, given = models.get(request.query_params.get("model", FIRST)), Parameters(request)
        node, top, choice = (
            given.number("node"),
            given.number("top", 20, _MOST_ROWS),
            given.choice(),
        )
        if suffix == "csv":
            content = without_formulas(asked.answers.table(node, top, choice)).write_csv().encode()
        else:
            content = asked.answers.report(node, f".{suffix}", top, choice)
        headers = {"Content-Disposition": f'attachment; filename="ranks-{node}.{suffix}"'}
        return Response(content, media_type=_EXPORTS[suffix], headers=headers)

    async def add(request: Request) -> Response:
        asked = await _body(request)
        name = request.query_params.get("model", FIRST)
        return _json(await run_in_threadpool(models.add, name, asked))

    async def progress(request: Request) -> Response:
        return _json({"part": current_part()})

    files = StaticFiles(packages=[(__package__, "static")], html=True)
    return Starlette(
        routes=[
            Route("/api/progress", progress),
            Route("/api/map", positions),
            *(Route(f"/api/export.{suffix}", partial(export, suffix)) for suffix in _EXPORTS),
            Route("/api/add", add, methods=["POST"]),
            Route("/api/{question}", answer),
            Mount("/", files),
        ],
        exception_handlers={InputError: _refused},
    )


async def _body(request: Request) -> Any:
    """Return the JSON that a request sends.

    Raises:
        InputError: it is not JSON.
        HTTPException: it is of another type, or too long.
    """
    # A form of another site cannot send this type without asking first.
    if request.headers.get("content-type", "") != "application/json":
        raise HTTPException(415)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise HTTPException(413)
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise InputError("the new node must be JSON") from None


def _refused(request: Request, error: Exception) -> Response:
    return _json({"error": str(error)}, 400)


def _json(record: Any, status: int = 200) -> Response:
    text = json.dumps(record, allow_nan=False)
    return Response(text, status, media_type="application/json")
