"""A cancelled request has its own status, also where a framework turns every error into a 500."""

import anyio
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from streamkit._core import Reason
from streamkit.asgi import CancellationMiddleware, request_token
from streamkit.streams import cancellable
from streamkit.testing import Exchange


@cancellable
async def endpoint(request: Request) -> Response:
    await anyio.sleep(60)
    return Response()


def starlette() -> Starlette:
    return Starlette(routes=[Route("/", endpoint)])


def mounted() -> Starlette:
    return Starlette(routes=[Mount("/", starlette())])


def fastapi() -> FastAPI:
    app = FastAPI()
    app.get("/")(endpoint)
    return app


async def run_cancelled(app, reason: Reason) -> Exchange:
    middleware = CancellationMiddleware(app)
    async with Exchange(middleware, method="GET") as exchange:
        await anyio.sleep(1)
        middleware.cancel_all(reason)
    return exchange


@pytest.mark.parametrize("make", [starlette, mounted, fastapi])
@pytest.mark.parametrize(
    ("reason", "status"), [(Reason.DRAIN, 503), (Reason.DEADLINE, 504), (Reason.REQUESTED, 499)]
)
async def test_a_wrapped_app_that_is_cancelled_answers_why(make, reason, status):
    exchange = await run_cancelled(make(), reason)

    assert exchange.status == status
    assert exchange.completed
    assert reason in exchange.text


async def test_an_engine_that_failed_is_the_apps_own_500():
    exchange = await run_cancelled(starlette(), Reason.ENGINE_FAILED)

    assert exchange.status == 500
    assert exchange.completed


async def test_an_answer_of_the_apps_own_goes_out_although_it_was_cancelled():
    async def polite(request: Request) -> Response:
        await request_token(request).wait()
        return Response("sorry", 429)

    exchange = await run_cancelled(Starlette(routes=[Route("/", polite)]), Reason.SHED)

    assert (exchange.status, exchange.text) == (429, "sorry")


async def test_an_error_that_is_no_cancel_stays_the_apps_500():
    async def broken(request: Request) -> Response:
        raise ValueError("boom")

    exchange = Exchange(
        CancellationMiddleware(Starlette(routes=[Route("/", broken)])), method="GET"
    )
    with pytest.raises(ValueError, match="boom"):
        await exchange.run()

    assert (exchange.status, exchange.completed) == (500, True)
