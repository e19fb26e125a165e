"""Whether a URL streams at all, and if not, what to do about it in one line."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, cast

from streamkit.testing._faults import Ask
from streamkit.testing._http1 import Head
from streamkit.testing.chaos._target import CannotTest, Target, below_http

from ._findings import shown
from ._hear import Heard

_LOGIN: Final = "send its key along: --header 'authorization: Bearer …'"
_ADVICE: Final = {
    401: _LOGIN,
    403: _LOGIN,
    404: "give the path of the route that streams, and its --target-profile or --request-template",
    405: "the route does not take this method; is this the right --target-profile?",
    413: "the proxy takes no body of that size",
    422: "is this the right --target-profile? --request-template says what any other server takes",
    502: "the proxy does not reach what is behind it",
    503: "the server is not ready, or the proxy does not reach it",
    504: "the proxy does not reach what is behind it",
}


def check_streams(target: Target, heard: Heard) -> None:
    """Say in one line why this is no streaming endpoint; nothing if it is one.

    Raises:
        CannotTest: It is none.
    """
    if heard.head is None:
        raise CannotTest(f"{target.url} does not answer: {below_http(heard.error or 'nothing')}")
    if heard.head.status != 200:
        raise CannotTest(f"{target.url} answered {heard.head.status}: {_advice(heard.head)}")
    if heard.error or not heard.complete:
        raise CannotTest(f"{target.url} did not finish a short answer: {heard.fault}")
    if target.tells_events and not heard.events:
        kind = shown(heard.header("content-type") or "none")
        if encoding := heard.header("content-encoding"):
            kind += f", compressed unasked: {shown(encoding)}"
        raise CannotTest(
            f"{target.url} does not stream: no server-sent event came (content-type: {kind}); "
            "is this the right route and --target-profile?"
        )
    kind = heard.header("content-type") or ""
    if not target.tells_events and heard.header("content-length") and "json" in kind:
        raise CannotTest(
            f"{target.url} does not stream: it sent one piece of {shown(kind)}, {len(heard.body)} "
            "bytes with their length in front; name a route that streams"
        )


def _advice(head: Head) -> str:
    if 300 <= head.status < 400:
        return f"it points to {shown(head.headers.get('location', 'nowhere'))}: name that"
    return _ADVICE.get(head.status, "is this the right --target-profile?")


def unary(ask: Ask) -> Ask | None:
    """The same question for one answer in one piece; None: it is not known how to ask for that."""
    asked = ask.json
    body = cast("dict[str, object]", asked) if isinstance(asked, dict) else {}
    if "stream" not in body:
        return None
    body = {name: value for name, value in body.items() if name != "stream_options"}
    headers = {name: value for name, value in ask.headers.items() if name != "accept"}
    return replace(ask, json={**body, "stream": False}, headers=headers)
