"""What is ready without waiting goes out in one send, and nothing waits for what is not there."""

import asyncio
import time

import anyio
import pytest

from streamkit import Reason, StreamCancelled, cancellable
from streamkit.asgi import ByteStream, CancellationMiddleware, EventStream
from streamkit.testing import Exchange

QUICK_UNTIL = 16  # chunks that go out one by one first


def app_of(response):
    async def app(scope, receive, send):
        await response()(scope, receive, send)

    return CancellationMiddleware(app)


class Sends:
    """An app between a response and the middleware that keeps what each send held."""

    def __init__(self, response) -> None:
        self.bodies: list[bytes] = []
        self.app = CancellationMiddleware(self._app)
        self._response = response

    async def _app(self, scope, receive, send) -> None:
        async def keep(message):
            self.bodies.append(message.get("body", b""))
            await send(message)

        await self._response()(scope, receive, keep)

    async def run(self, **client) -> Exchange:
        return await Exchange(self.app, **client).run()


async def never_waits(number: int):
    for index in range(number):
        yield f"{index},"


def text_of(number: int) -> str:
    return "".join(f"{index}," for index in range(number))


@pytest.mark.parametrize("number", [0, 1, 15, 16, 17, 79, 80, 81, 1000])
async def test_a_generator_that_never_waits_arrives_whole_in_few_sends(number) -> None:
    sends = Sends(lambda: ByteStream(cancellable(never_waits(number))))

    exchange = await sends.run()

    assert exchange.text == text_of(number)
    assert exchange.completed
    assert len(sends.bodies) <= min(number, QUICK_UNTIL) + number / 64 + 4


async def test_each_event_stays_one_event() -> None:
    sends = Sends(lambda: EventStream(cancellable(never_waits(200))))

    exchange = await sends.run()

    assert exchange.text.count("data: ") == 201  # and the last one, which says how it ended
    assert len(sends.bodies) < 50


async def test_no_chunk_waits_for_one_that_is_not_there() -> None:
    async def bursts():
        for burst in range(4):
            for index in range(100):
                yield f"{burst}.{index},"
            await anyio.sleep(10)

    came: list[tuple[float, int]] = []
    clock = asyncio.get_running_loop().time

    async def app(scope, receive, send):
        async def stamp(message):
            came.append((clock() - began, message.get("body", b"").count(b",")))
            await send(message)

        await ByteStream(cancellable(bursts()))(scope, receive, stamp)

    began = clock()
    exchange = await Exchange(CancellationMiddleware(app)).run()

    assert exchange.text == "".join(f"{b}.{i}," for b in range(4) for i in range(100))
    by_time: dict[float, int] = {}
    for at, chunks in came:
        by_time[round(at)] = by_time.get(round(at), 0) + chunks
    assert by_time == {0: 100, 10: 100, 20: 100, 30: 100, 40: 0}


async def test_what_came_before_an_error_is_sent_before_it() -> None:
    async def breaks():
        async for chunk in never_waits(90):
            yield chunk
        raise ValueError("broken")

    raw = Exchange(app_of(lambda: ByteStream(cancellable(breaks()))))
    with pytest.raises(ValueError, match="broken"):
        await raw.run()
    events = await Exchange(app_of(lambda: EventStream(cancellable(breaks())))).run()

    assert raw.text == text_of(90)
    assert not raw.completed
    assert events.text.count("data: ") == 91
    assert "event: error" in events.text


async def test_a_cancel_while_chunks_are_written_reaches_the_waiting_generator() -> None:
    seen: list[str] = []

    async def waits_behind_a_burst():
        try:
            for index in range(QUICK_UNTIL + 30):
                yield f"{index},"
            await anyio.sleep_forever()
        except BaseException as error:
            seen.append(type(error).__name__)
            raise
        finally:
            await anyio.sleep(0.1)
            seen.append("cleaned up")

    app = app_of(lambda: ByteStream(cancellable(waits_behind_a_burst())))
    await Exchange(app, stops_reading_after_chunks=QUICK_UNTIL, leaves_after_seconds=1).run()

    assert seen == ["CancelledError", "cleaned up"]


async def test_a_send_that_fails_ends_the_waiting_generator() -> None:
    seen: list[str] = []

    async def waits_behind_a_burst():
        try:
            for index in range(QUICK_UNTIL + 30):
                yield f"{index},"
            await anyio.sleep_forever()
        finally:
            await anyio.sleep(0.1)
            seen.append("cleaned up")

    sent = 0

    async def send(message):
        nonlocal sent
        sent += 1
        if sent > QUICK_UNTIL + 1:
            await anyio.sleep(1)
            raise ConnectionError("gone")

    async def receive():
        await anyio.sleep_forever()

    response = ByteStream(cancellable(waits_behind_a_burst()))
    with pytest.raises(ConnectionError, match="gone"):
        await response({"type": "http", "headers": []}, receive, send)

    assert seen == ["cleaned up"]


async def test_a_timeout_of_the_generator_strikes_it_alone_while_chunks_are_written() -> None:
    async def gives_up_waiting():
        for index in range(QUICK_UNTIL + 30):
            yield f"{index},"
        try:
            async with asyncio.timeout(1):
                await anyio.sleep_forever()
        except TimeoutError:
            yield "late"

    sent: list[bytes] = []

    async def send(message):
        sent.append(message.get("body", b""))
        if len(sent) == QUICK_UNTIL + 2:  # the one that the timeout falls into
            await anyio.sleep(5)

    async def receive():
        await anyio.sleep_forever()

    response = ByteStream(cancellable(gives_up_waiting()))
    await response({"type": "http", "headers": []}, receive, send)

    assert b"".join(sent).decode() == text_of(QUICK_UNTIL + 30) + "late"


async def test_short_bursts_go_out_together_once_many_chunks_were_at_hand() -> None:
    async def bursts():
        for _ in range(40):
            await anyio.sleep(1)
            for _ in range(8):
                yield "x"

    sends = Sends(lambda: ByteStream(cancellable(bursts())))

    await sends.run()

    assert b"".join(sends.bodies) == b"x" * 320
    assert [body for body in sends.bodies if body][-36:] == [b"x" * 8] * 36


@pytest.mark.realtime
@pytest.mark.blocks_the_loop
async def test_a_generator_that_computes_in_the_loop_delays_its_chunks_once_and_not_again() -> None:
    clock = time.thread_time  # of this thread alone: what else the machine does is not counted
    made: list[float] = []
    delayed: list[float] = []

    async def computes_now_and_then():
        for index in range(100):
            ready_at = clock() + (0.004 if index > QUICK_UNTIL and index % 4 == 0 else 0)
            while clock() < ready_at:
                pass
            made.append(clock())
            yield "x"

    async def send(message):
        for _ in message.get("body", b""):
            delayed.append(clock() - made[len(delayed)])

    async def receive():
        await anyio.sleep_forever()

    response = ByteStream(cancellable(computes_now_and_then()))
    await response({"type": "http", "headers": []}, receive, send)

    assert len(delayed) == 100
    assert len([each for each in delayed if each > 0.003]) <= 4


async def test_an_iterator_that_counts_what_was_taken_is_not_asked_ahead() -> None:
    class Counts:
        made = 0

        def __aiter__(self):
            return self

        async def __anext__(self):
            if self.made == 100:
                raise StopAsyncIteration
            self.made += 1
            return "x"

    sends = Sends(lambda: ByteStream(cancellable(Counts())))

    await sends.run()

    assert [body for body in sends.bodies if body] == [b"x"] * 100


async def test_a_cancelled_burst_is_cut_short() -> None:
    async def endless():
        while True:
            yield "x"

    response = ByteStream(cancellable(endless()))

    async def send(message):
        if message.get("body", b"").count(b"x") > 1:  # it is being asked ahead
            response.body_iterator.source.cancel(Reason.REQUESTED)

    async def receive():
        await anyio.sleep_forever()

    with pytest.raises(StreamCancelled):
        await response({"type": "http", "headers": []}, receive, send)


async def test_a_burst_without_end_hears_of_the_client_that_left() -> None:
    made = 0

    async def endless():
        nonlocal made
        while made < 100_000:
            made += 1
            yield "x"

    app = app_of(lambda: ByteStream(cancellable(endless())))
    await Exchange(app, leaves_after_chunks=QUICK_UNTIL + 3).run()

    assert made <= QUICK_UNTIL + 5 * 64
