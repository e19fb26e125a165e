"""Cut short in each turn of the loop, each kind of model in each way and form: nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from streamkit._core import held, hold
from streamkit.server.app import Application
from streamkit.testing import Exchange, every_moment

from .conftest import PREDICT, Serve
from .zoo import KINDS

FORMS: dict[str, dict[str, str]] = {
    "raw": {},
    "events": {"accept": "text/event-stream"},
    "joined": {"accept": "application/json"},
    "msgpack": {"content-type": "application/octet-stream"},
}
WAYS: dict[str, Callable[[Application, Exchange], object]] = {
    "client_disconnect": lambda _, exchange: exchange.leave(),
    "requested": lambda app, _: app.runner.cancel("r"),
    "drain": lambda _, exchange: exchange.cancel(),
    "write_stalled": lambda _, exchange: exchange.stop_reading(),
}
"""What ends a request, by the reason that its books give."""


def duration_of(exchange: Exchange) -> float:
    assert exchange.started_at is not None
    assert exchange.ended_at is not None
    return exchange.ended_at - exchange.started_at


class Scene:
    """One model of one slot, one exchange at a time, and whether anything of the last is left."""

    def __init__(
        self, serve: Serve, kind: str, form: str, server: str = "uvicorn", **settings: Any
    ) -> None:
        self.model = KINDS[kind]()
        self.path = getattr(self.model, "path", PREDICT)
        self.form = form
        self.server: Any = server
        self._make_app = lambda: serve(self.model, write_stall=1.0, **settings)
        self.app: Application = self._make_app()
        self.exchange: Exchange | None = None
        self.whole = b""
        self.lasts = 0.0
        self.runs = 0

    def ask(self, request_id: str = "r") -> Exchange:
        body = msgpack.packb("in") if self.form == "msgpack" else b'"in"'
        return Exchange(
            self.app,
            path=self.path,
            body=body,
            headers={"x-request-id": request_id, **FORMS[self.form]},
            server=self.server,
        )

    async def run(self) -> None:
        self.runs += 1
        self.exchange = self.ask()
        await self.exchange.run()

    async def run_anew(self) -> None:
        """For what a server does once in its life."""
        self.app, self.runs = self._make_app(), 0
        await self.run()

    async def run_behind_another(self) -> None:
        """It waits for the other's slot, at first."""
        self.runs += 1
        async with self.ask("other") as other:
            await self.run()
        assert other.data == self.whole

    async def run_whole(self) -> None:
        """Once without anybody who cuts it short."""
        await self.run()
        assert self.exchange is not None
        assert (self.exchange.status, self.exchange.completed) == (200, True)
        self.whole = self.exchange.data
        self.lasts = duration_of(self.exchange)
        await self.check(None)

    def act(self, way: str) -> None:
        assert self.exchange is not None
        WAYS[way](self.app, self.exchange)

    async def check_next(self) -> None:
        """It gets its slot at once, and is answered as the first one was."""
        self.runs += 1
        canary = await self.ask("canary").run()
        assert (canary.status, canary.data) == (200, self.whole)
        assert duration_of(canary) == pytest.approx(self.lasts)

    async def check(self, way: str | None) -> None:
        runner = self.app.runner
        await runner.in_flight.wait_idle()
        assert self.model.running == 0
        books = runner.served.statistics()
        assert books is not None
        assert (books.running, books.queued, books.quarantined) == (0, 0, 0)
        assert runner.admission.admitted == 0
        assert set(held()) <= {"drain"}  # our own
        totals = runner.statistics()
        refused = totals.refused.get("unavailable", 0) if runner.draining else 0
        assert (totals.violations, totals.quarantined) == (0, 0)
        assert totals.received == totals.finished + totals.cancelled + refused == self.runs
        assert self.exchange is not None
        if refused:
            assert self.exchange.status == 503
        else:
            self._check_answer(way)

    def _check_answer(self, way: str | None) -> None:
        """A part never looks like the whole, and the books say what the client saw."""
        exchange, account = self.exchange, self.app.runner.find("r")
        assert exchange is not None
        assert account is not None
        assert account.reason in {None, way}, account.detail
        assert account.produced == account.delivered + account.undelivered
        if account.phase == "finished":  # all was sent, though the client may have left by then
            assert not exchange.sent[-1].message.get("more_body")
        if exchange.completed and exchange.status == 200 and exchange.data != self.whole:
            last = exchange.events[-1]
            assert last.event == "error" or "error" in last.json()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
async def test_whatever_turn_it_is_cut_short_in_nothing_of_it_is_left(
    serve: Serve, way: str, kind: str, form: str
) -> None:
    await cut_in_every_turn(Scene(serve, kind, form), way)


@pytest.mark.parametrize("server", ["hypercorn", "granian", "standard"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["client_disconnect", "drain", "write_stalled"])
async def test_that_holds_with_the_manners_of_each_server(
    serve: Serve, way: str, kind: str, server: str
) -> None:
    await cut_in_every_turn(Scene(serve, kind, "raw", server), way)


async def cut_in_every_turn(scene: Scene, way: str) -> None:
    await scene.run_whole()

    report = await every_moment(scene.run, lambda: scene.act(way), check=lambda: scene.check(way))

    assert report.runs > 3  # in as few turns as a request takes where nothing waits
    outcomes = {ending.outcome for ending in scene.app.runner.statistics().ended}
    assert outcomes == {"finished", "cancelled"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
async def test_one_that_waits_for_its_slot_is_cut_short_without_harm_to_the_one_that_has_it(
    serve: Serve, way: str, kind: str
) -> None:
    scene = Scene(serve, kind, "raw", slots_cover="all")
    await scene.run_whole()

    await every_moment(
        scene.run_behind_another, lambda: scene.act(way), check=lambda: scene.check(way)
    )


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "Asks"])  # it has its time
async def test_the_next_request_is_served_at_once(serve: Serve, kind: str) -> None:
    scene = Scene(serve, kind, "raw")
    await scene.run_whole()

    await every_moment(scene.run, lambda: scene.act("client_disconnect"), check=scene.check_next)


@pytest.mark.parametrize("form", ["raw", "events"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_drain_in_any_turn_leaves_nothing_behind(
    serve: Serve, kind: str, form: str
) -> None:
    scene = Scene(serve, kind, form)
    await scene.run_whole()

    def drain() -> None:
        hold(lambda: scene.app.runner.drain(0), name="drain", limit=60)

    await every_moment(scene.run_anew, drain, check=lambda: scene.check("drain"))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_deadline_leaves_nothing_behind(serve: Serve, kind: str, form: str) -> None:
    whole = Scene(serve, kind, form)
    await whole.run_whole()
    for tenths in (0.5, 1, 1.5, 2, 2.5, 3):  # some at the very instant of a step's end
        scene = Scene(serve, kind, form, request_timeout=tenths / 10)
        scene.whole = whole.whole
        await scene.run()
        await scene.check("deadline")
