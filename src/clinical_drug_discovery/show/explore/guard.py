"""Guard the page: its address has a secret token, and other sites get nothing out of it.

Three attacks are met. Another program or user of the computer does not know the token. A web site
whose name points to this computer (DNS rebinding) sends its own name as Host, which is refused. A
web site that sends requests to 127.0.0.1 lacks the token, and cannot read answers, because no
header allows it (no CORS).
"""

from __future__ import annotations

from collections.abc import Collection
from hmac import compare_digest
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    # No text can become markup: the browser refuses innerHTML and its relatives.
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",  # the address has the token
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Pass on requests with the token as the first part of their path, and refuse all others.

    The token stays in the path, so that it needs no cookie: browsers send the cookies of 127.0.0.1
    to each of its ports, also to those of other users.

    Args:
        app: gets the requests without the token in their path.
        token: a secret text of ASCII letters, digits, "-" and "_".
        hosts: the allowed values of the header Host, such as "127.0.0.1:8765".
    """

    def __init__(self, app: ASGIApp, token: str, hosts: Collection[str]) -> None:
        self._app, self._token = app, token.encode()
        self._hosts = [[host] for host in hosts]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, with the headers that forbid anything from outside."""
        if scope["type"] != "http":  # the server does not offer other kinds
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        if Headers(scope=scope).getlist("host") not in self._hosts:
            answer = PlainTextResponse("The Host of this request is not this page.\n", 403)
            await answer(scope, receive, send_guarded)
            return
        first, slash, rest = scope["path"].removeprefix("/").partition("/")
        # In constant time, so that the time of an answer does not tell a part of the token.
        if not compare_digest(first.encode(errors="replace"), self._token) or not slash:
            text = "The address must be the one that cdd explore has printed, with its token.\n"
            await PlainTextResponse(text, 403)(scope, receive, send_guarded)
            return
        inner = {**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode(), "root_path": ""}
        await self._app(inner, receive, send_guarded)
