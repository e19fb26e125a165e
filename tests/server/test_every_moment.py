"""Cut short in each turn of the loop, in each way and form: the books balance every time."""

from collections.abc import Callable

import pytest

from streamkit._core import held
from streamkit.engines import FakeEngine
from streamkit.server.app import Application, create_app
from streamkit.server.settings import Settings
from streamkit.testing import Exchange, every_moment

TOKENS = 4
FORMS = {
    "json": {"accept": "application/json"},
    "raw": {"accept": "*/*"},
    "events": {"accept": "text/event-stream"},
}
WAYS: dict[str, Callable[[Application, Exchange], object]] = {
    "the client leaves": lambda _, exchange: exchange.leave(),
    "somebody cancels": lambda app, _: app.runner.cancel("r"),
    "the server cancels": lambda _, exchange: exchange.cancel(),
    "the client stops reading": lambda _, exchange: exchange.stop_reading(),
}


class Scene:
    """One app over an engine of one slot, one exchange at a time, and its books before."""

    def __init__(self, form: str, server: str) -> None:
        self.form = form
        self.server = server
        self.engine = FakeEngine(slots=1, step_ms=10)
        self.app = create_app(Settings(write_stall=1.0), engine=self.engine)
        self.exchange: Exchange | None = None
        self.runs = 0

    async def run(self) -> None:
        self.runs += 1
        self.exchange = Exchange(
            self.app,
            path="/generate",
            json={"prompt": "a b", "max_tokens": TOKENS, "stream": self.form != "json"},
            headers={"x-request-id": "r", **FORMS[self.form]},
            server=self.server,
        )
        await self.exchange.run()

    def act(self, way: str) -> None:
        assert self.exchange is not None
        WAYS[way](self.app, self.exchange)

    async def check(self) -> None:
        runner = self.app.runner
        await runner.in_flight.wait_idle()
        totals, books = runner.statistics(), self.engine.statistics()
        assert (totals.violations, totals.quarantined, totals.refused) == (0, 0, {})
        assert totals.received == totals.finished + totals.cancelled == self.runs
        assert sum(sums.produced for sums in totals.ended.values()) == books.tokens
        assert (books.running, books.queued, runner.admission.admitted) == (0, 0, 0)
        assert held() == []
        record = self.engine.log.request("r")
        assert record is None or record.aborts <= 1
        account = runner.find("r")
        assert account is not None
        if account.phase == "finished":
            assert account.delivered == TOKENS
            assert record is not None
            assert record.aborts == 0


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn", "granian", "standard"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", WAYS)
async def test_whatever_turn_it_is_cut_short_in_the_books_balance(
    way: str, form: str, server: str
) -> None:
    scene = Scene(form, server)

    report = await every_moment(scene.run, lambda: scene.act(way), check=scene.check)

    assert scene.runs > 10, report
    outcomes = {ending.outcome for ending in scene.app.runner.statistics().ended}
    assert outcomes == {"finished", "cancelled"}
    await scene.app.runner.aclose()
