"""`streamkit chaos` finds what is known to be wrong with plain apps, from outside."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from streamkit.testing import serve_app

pytestmark = [pytest.mark.realtime, pytest.mark.timeout(120)]

STEP = 0.01  # seconds for each word: a busy machine must not make sixteen last twice as long
TEMPLATE = {
    "path": "/ask",
    "json": {"prompt": "{prompt}", "words": "{max_tokens}"},
    "counters": {"path": "/stats", "running": ["running"], "tokens": ["made"]},
}


class Work:
    """What an app's engine would say: work that runs, and words that were made."""

    def __init__(self) -> None:
        self.running = 0
        self.made = 0

    async def stats(self, _: Request) -> Response:
        return JSONResponse({"running": self.running, "made": self.made})

    async def words(self, count: int) -> AsyncIterator[str]:
        self.running += 1
        try:
            for number in range(count):
                await anyio.sleep(STEP)
                self.made += 1
                yield f"{number} "
        finally:
            self.running -= 1

    def blocking_words(self, count: int) -> Iterator[str]:
        self.running += 1
        try:
            for number in range(count):
                time.sleep(STEP)  # noqa: TID251 - works, in a thread
                self.made += 1
                yield f"{number} "
        finally:
            self.running -= 1

    async def run_on(self, request: Request, count: int) -> AsyncIterator[str]:
        """Generates as long as it is told that its client is there, as apps do that poll."""
        async for word in self.words(count):
            if await request.is_disconnected():
                return
            yield word


async def asked(request: Request) -> int:
    return int((await request.json())["words"])


def stream(work: Work) -> Starlette:
    async def ask(request: Request) -> Response:
        return StreamingResponse(work.words(await asked(request)))

    return app_of(work, ask)


def sync_generator(work: Work) -> Starlette:
    async def ask(request: Request) -> Response:
        return StreamingResponse(work.blocking_words(await asked(request)))

    return app_of(work, ask)


def unary_call(work: Work) -> Starlette:
    async def ask(request: Request) -> Response:
        return Response("".join([word async for word in work.words(await asked(request))]))

    return app_of(work, ask)


class PassOn(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: object) -> Response:
        return await call_next(request)


def polls_behind_base_http_middleware(work: Work) -> Starlette:
    async def ask(request: Request) -> Response:
        words = [word async for word in work.run_on(request, await asked(request))]
        return Response("".join(words))

    return app_of(work, ask, Middleware(PassOn))


def app_of(work: Work, ask: object, *middleware: Middleware) -> Starlette:
    routes = [Route("/ask", ask, methods=["POST"]), Route("/stats", work.stats)]
    return Starlette(routes=routes, middleware=middleware)


async def chaos_at(
    app: Starlette,
    folder: Path,
    *faults: str,
    within: float = 1,
    server: str = "uvicorn",
    certificate=None,
) -> tuple[int, dict]:
    template, report = folder / "template.json", folder / "report.json"
    template.write_text(json.dumps(TEMPLATE))
    limits = (f"--stop-within={within}", "--stay=0.3")
    options = ("--clients=6", "--concurrency=3", "--seed=1", *limits)
    async with serve_app(app, server, certificate=certificate) as url:
        command = [sys.executable, "-m", "streamkit.server.cli", "chaos", url, *options]
        done = await anyio.run_process(
            [*command, f"--request-template={template}", f"--json={report}", *faults], check=False
        )
    assert report.exists(), done.stderr.decode()
    return done.returncode, json.loads(report.read_text())


async def test_a_plain_stream_that_starlette_cancels_passes(tmp_path: Path) -> None:
    """So that what is found below is the app's fault, and not the kit's."""
    status, report = await chaos_at(stream(Work()), tmp_path, "--fault=rst@byte:9")

    assert (status, report["cells"][0]["state"]) == (0, "stopped"), report["checks"]


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (sync_generator, "fin@byte:9"),
        (unary_call, "fin@queued:0.2"),
        (polls_behind_base_http_middleware, "rst@queued:0.2"),
    ],
)
async def test_a_known_fault_of_a_plain_app_is_found(tmp_path: Path, make, fault: str) -> None:
    work = Work()
    # What runs on does so for three times the bound, whatever that is: half as long.
    status, report = await chaos_at(make(work), tmp_path, f"--fault={fault}", within=0.5)

    assert (status, report["verdict"]) == (1, "bad")
    assert report["cells"][0]["state"] == "ran on", report["cells"]
    assert report["checks"]["stops"]["word"] == "bad"
    assert report["checks"]["visible"]["word"] == "good", "a run-on could be seen"


async def test_a_server_with_tls_meets_the_client_that_leaves_out_the_close_notify(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    options = ("--insecure", "--fault=tls_cut@byte:9")
    status, report = await chaos_at(stream(Work()), tmp_path, *options, certificate=certificate)

    assert (status, report["cells"][0]["state"]) == (0, "stopped"), report["checks"]


async def test_a_server_with_http2_meets_the_client_that_resets_its_stream(tmp_path: Path) -> None:
    options = ("--http2", "--fault=h2_reset@byte:9")
    status, report = await chaos_at(stream(Work()), tmp_path, *options, server="hypercorn")

    assert (status, report["cells"][0]["state"]) == (0, "stopped"), report["checks"]
