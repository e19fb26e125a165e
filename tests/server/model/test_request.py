"""The request that a model gets: Starlette's, the same in all stages, told of every cancel."""

import threading

import anyio
import fastapi
import pytest
from starlette.requests import Request

from streamkit import cancellable, current_token
from streamkit._core import held
from streamkit.testing import Exchange


async def test_all_stages_get_the_identical_object(serve, ask) -> None:
    seen = []

    class Looks:
        async def preprocess(self, inputs, request: Request):
            seen.append(request)

        def predict(self, inputs, request: fastapi.Request):
            seen.append(request)

        async def postprocess(self, inputs, request: Request):
            seen.append(request)

    await ask(serve(Looks)).run()

    assert len(seen) == 3
    assert seen[0] is seen[1] is seen[2]
    assert isinstance(seen[0], Request)


async def test_its_body_can_be_asked_for_again_and_again(serve, ask) -> None:
    class Reads:
        async def preprocess(self, inputs, request: Request):
            return [inputs, await request.json()]

        async def predict(self, inputs, request: Request):
            pieces = [piece async for piece in request.stream()]
            return [*inputs, (await request.body()).decode(), b"".join(pieces).decode()]

    exchange = await ask(serve(Reads), [1]).run()

    assert exchange.text == '[[1], [1], "[1]", "[1]"]'


async def test_what_a_stage_writes_on_its_state_is_there_for_the_next_and_for_nobody_else(
    serve, ask
) -> None:
    class Keeps:
        async def preprocess(self, inputs, request: Request):
            known = hasattr(request.state, "mine")
            request.state.mine = inputs
            return known

        async def predict(self, inputs, request: Request):
            return [inputs, request.state.mine]

    app = serve(Keeps)
    shared: dict[str, object] = {}

    async def server_that_shares(scope, receive, send) -> None:
        await app({**scope, "state": shared}, receive, send)

    answers = [(await ask(server_that_shares, n).run()).text for n in (1, 2)]

    assert answers == ["[false, 1]", "[false, 2]"]
    assert shared == {}


# -- asking ------------------------------------------------------------------------------------


class Asks:
    """As Truss's documentation has it."""

    def __init__(self) -> None:
        self.log: list[str] = []

    async def predict(self, inputs, request: fastapi.Request):
        await anyio.sleep(1)
        if await request.is_disconnected():
            self.log.append("before")
            return
        for step in range(5):
            await anyio.sleep(1.0)
            yield str(step)
            if await request.is_disconnected():
                await anyio.sleep(0.1)  # an abort that waits for its engine
                self.log.append("during")
                return


@pytest.mark.parametrize(("seconds", "log"), [(0.5, "before"), (2.5, "during")])
async def test_trusss_own_example_runs_as_it_is_written(serve, ask, seconds, log) -> None:
    app = serve(Asks)

    await ask(app, leaves_after_seconds=seconds, headers={"x-request-id": "r"}).run()
    await app.runner.in_flight.wait_idle()

    assert app.service.model.log == [log]
    account = app.runner.find("r")
    assert (account.reason, account.phase, account.proof.word) == (
        "client_disconnect",
        "cancelled",
        "joined",
    )


async def cancel(app, exchange: Exchange) -> None:
    app.runner.cancel("r")


async def drain(app, exchange: Exchange) -> None:
    await app.runner.drain(0)


async def leave(app, exchange: Exchange) -> None:
    exchange.leave()


@pytest.mark.parametrize("way", [cancel, drain, leave])
async def test_every_kind_of_cancel_is_told_to_who_asks(serve, ask, way) -> None:
    app = serve(Asks)

    async with ask(app, headers={"x-request-id": "r"}) as exchange:
        await exchange.wait_chunks(1)
        await way(app, exchange)
    await app.runner.in_flight.wait_idle()

    assert app.service.model.log == ["during"]


async def test_who_stays_is_told_so(serve, ask) -> None:
    class Answers:
        async def predict(self, request: Request):
            return [await request.is_disconnected(), await request.is_disconnected()]

    assert (await ask(serve(Answers)).run()).text == "[false, false]"


async def test_a_question_on_a_thread_is_answered_by_the_loop(serve, ask) -> None:
    class Answers:
        def predict(self, request: Request):
            answers = [anyio.from_thread.run(request.is_disconnected)]
            current_token().wait_in_thread(9)
            return [*answers, log.append(anyio.from_thread.run(request.is_disconnected))]

    log: list[bool] = []
    app = serve(Answers)

    await ask(app, leaves_after_seconds=1).run()
    await app.runner.in_flight.wait_idle()

    assert log == [True]


async def test_asking_in_a_circle_lets_others_run(serve, ask) -> None:
    class Circles:
        async def predict(self, request: Request):
            while not await request.is_disconnected():
                pass

    app = serve(Circles)

    async with ask(app) as exchange:
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        exchange.leave()

    await app.runner.in_flight.wait_idle()
    totals = app.runner.statistics()
    assert (totals.cancelled, totals.failed, totals.violations) == (1, 0, 0)


async def test_who_asks_on_in_a_task_that_nobody_stops_is_told_that_it_is_over(serve, ask) -> None:
    """On Truss, a polling task that was forgotten ended with the response."""
    over = anyio.Event()

    class Forgets:
        async def predict(self, request: Request):
            async def poll() -> None:
                while not await request.is_disconnected():  # noqa: ASYNC110 - as on Truss
                    await anyio.sleep(0.1)
                over.set()

            tasks.start_soon(poll)
            return "answer"

    async with anyio.create_task_group() as tasks:
        assert (await ask(serve(Forgets)).run()).text == '"answer"'
        with anyio.fail_after(1):
            await over.wait()


async def test_what_the_model_makes_cancellable_hangs_on_the_call(serve, ask) -> None:
    cancelled = []

    class Decorates:
        @cancellable(on_cancel=lambda cause: cancelled.append(cause.reason))
        async def predict(self, inputs, request: Request):
            await anyio.sleep(10)

    exchange = await ask(serve(Decorates, request_timeout=1)).run()

    assert (exchange.status, cancelled) == (504, ["deadline"])


# -- watching ----------------------------------------------------------------------------------


class Watches:
    def __init__(self) -> None:
        self.log: list[object] = []
        self.held: list[str] = []

    def predict(self, inputs, request: Request):
        with request.state.watch_disconnect() as disconnected:
            assert isinstance(disconnected, threading.Event)
            while not disconnected.is_set():
                current_token().wait_in_thread(0.5)
            self.log.append(disconnected.is_set())


class WatchesOnTheLoop(Watches):
    async def predict(self, inputs, request: Request):
        with request.state.watch_disconnect() as disconnected:
            while not disconnected.is_set():  # noqa: ASYNC110 - as on Truss
                await anyio.sleep(0.5)
            await anyio.sleep(0.5)  # it cleans up
            self.log.append(disconnected.is_set())


class WatchesAsynchronously(Watches):
    async def predict(self, inputs, request: Request):
        async with request.state.watch_disconnect() as disconnected:
            assert not disconnected.is_set()
            self.held = held()
            await disconnected.wait()
            await anyio.sleep(0.5)
            self.log.append(disconnected.is_set())


class WatchesWhileStreaming(Watches):
    def predict(self, inputs, request: Request):
        with request.state.watch_disconnect() as disconnected:
            yield "first"
            while not disconnected.is_set():
                current_token().wait_in_thread(0.5)
            self.log.append(disconnected.is_set())


@pytest.mark.parametrize("way", [cancel, leave])
@pytest.mark.parametrize(
    "kind", [Watches, WatchesOnTheLoop, WatchesAsynchronously, WatchesWhileStreaming]
)
async def test_who_watches_is_told_and_can_clean_up(serve, ask, kind, way) -> None:
    app = serve(kind)

    async with ask(app, headers={"x-request-id": "r"}) as exchange:
        await anyio.sleep(1)
        await way(app, exchange)
    await app.runner.in_flight.wait_idle()

    assert app.service.model.log == [True]
    assert app.service.model.held == []  # nothing polls
    assert app.runner.statistics().violations == 0


async def test_what_watched_is_not_told_afterwards(serve, ask) -> None:
    class Stops:
        async def predict(self, inputs, request: Request):
            with request.state.watch_disconnect() as first:
                pass
            async with request.state.watch_disconnect() as second:
                pass
            log.append((first, second))
            await anyio.sleep(10)

    log: list[tuple[threading.Event, anyio.Event]] = []
    app = serve(Stops)

    await ask(app, leaves_after_seconds=1).run()
    await app.runner.in_flight.wait_idle()

    assert [event.is_set() for event in log[0]] == [False, False]


async def test_who_begins_to_watch_too_late_is_told_at_once(serve, ask) -> None:
    class Late:
        def predict(self, inputs, request: Request):
            current_token().wait_in_thread(9)
            with request.state.watch_disconnect() as disconnected:
                log.append(disconnected.is_set())

    log: list[bool] = []
    app = serve(Late)

    await ask(app, leaves_after_seconds=1).run()
    await app.runner.in_flight.wait_idle()

    assert log == [True]
