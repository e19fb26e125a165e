"""Each request's book says what happened to it, and all books together balance."""

import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import anyio
import anyio.lowlevel
import pytest

from streamkit._core import CancelSource, Phase, Reason, now
from streamkit.engines import FakeEngine, GenerationRequest, Misbehaviour, Proof
from streamkit.errors import EngineFailed, StreamCancelled, UsageBug
from streamkit.runner import Account, EngineRunner, Ledger

STEP = 0.02
Serve = Callable[..., Awaitable]
LIES = [
    "ignore_abort",
    "lose_abort:2",
    "ack_and_run_on",
    "answer_late:1.5",
    "never_answer",
    "crash",
]


def find(runner: EngineRunner, request_id: str) -> Account:
    account = runner.find(request_id)
    assert account is not None
    return account


def total(runner: EngineRunner, what: str) -> int:
    return sum(getattr(sums, what) for sums in runner.statistics().ended.values())


async def cancelled_after(runner: EngineRunner, serve: Serve, seconds: float, **request) -> Account:
    source = CancelSource()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: serve(runner, source, request_id="cut", **request))
        await anyio.sleep(seconds)
        source.cancel(Reason.CLIENT_DISCONNECT, "gone")
    await runner.in_flight.wait_idle()
    return find(runner, "cut")


async def test_a_request_that_was_answered_whole_delivered_all_it_produced(serve: Serve) -> None:
    runner = EngineRunner(FakeEngine())

    served = await serve(runner, max_tokens=5)

    account = find(runner, served.id)
    assert (account.phase, account.reason) == (Phase.FINISHED, None)
    assert (account.prompt_tokens, account.produced, account.delivered) == (3, 5, 5)
    assert (account.undelivered, account.wasted, account.saved) == (0, 0, 0)
    assert (account.told_after, account.proof) == (None, Proof.ANSWERED)
    assert account.first_token_after == pytest.approx(STEP)
    assert account.age == pytest.approx(5 * STEP)


async def test_the_seconds_of_its_phases_add_up_to_its_age(serve: Serve) -> None:
    runner = EngineRunner(FakeEngine(slots=1))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: serve(runner, max_tokens=10))
        await anyio.sleep(STEP / 2)
        served = await serve(runner, prompt="w " * 1000, max_tokens=3, sending=0.5)

    account = find(runner, served.id)
    assert sum(account.seconds.values()) == pytest.approx(account.age)
    assert account.seconds[Phase.QUEUED] == pytest.approx(9.5 * STEP)
    assert account.seconds[Phase.PREFILL] == pytest.approx(2 * STEP)
    # Three tokens, but the engine does not wait: the last two are read as one piece.
    assert account.seconds[Phase.SENDING] == pytest.approx(2 * 0.5)


async def test_a_request_that_was_cut_short_has_its_cancel_in_three_parts(serve: Serve) -> None:
    runner = EngineRunner(FakeEngine())

    account = await cancelled_after(runner, serve, 3.5 * STEP, max_tokens=50)

    assert (account.phase, account.reason) == (Phase.CANCELLED, Reason.CLIENT_DISCONNECT)
    assert (account.cancelled_in, account.detail) == (Phase.DECODE, "gone")
    assert account.detected_after == pytest.approx(3.5 * STEP)
    assert account.told_after == 0.0
    assert account.proved_after == pytest.approx(0.5 * STEP)
    assert account.proof is Proof.OBSERVED
    assert (account.produced, account.delivered, account.undelivered) == (4, 3, 1)
    assert (account.wasted, account.saved) == (1, 46)


async def test_what_was_saved_counts_from_the_engines_own_default_and_every_choice(
    serve: Serve,
) -> None:
    runner = EngineRunner(FakeEngine(max_tokens=40))

    account = await cancelled_after(runner, serve, 1.5 * STEP, n=2)

    assert account.saved == 2 * 40 - account.produced


@pytest.mark.parametrize(
    ("seconds", "phase"),
    [
        pytest.param(0.5 * STEP, Phase.QUEUED, id="queued"),
        pytest.param(4.5 * STEP, Phase.PREFILL, id="prefill"),
        pytest.param(8.5 * STEP, Phase.DECODE, id="decode"),
        pytest.param(8.0 * STEP + 0.6, Phase.SENDING, id="sending"),
    ],
)
async def test_a_cancel_is_booked_in_the_phase_that_it_found(
    serve: Serve, seconds: float, phase: Phase
) -> None:
    engine = FakeEngine(slots=1)
    runner = EngineRunner(engine)
    sending = 1.0 if phase is Phase.SENDING else 0.0

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: serve(runner, max_tokens=3))
        await anyio.lowlevel.checkpoint()
        account = await cancelled_after(
            runner, serve, seconds, prompt="w " * 2048, max_tokens=100, sending=sending
        )

    assert account.cancelled_in is phase
    [ending] = [e for e in runner.statistics().ended if e.outcome is Phase.CANCELLED]
    assert ending == (Phase.CANCELLED, Reason.CLIENT_DISCONNECT, phase)
    assert total(runner, "produced") == engine.statistics().tokens


async def test_a_chunk_that_was_on_its_way_when_the_client_left_is_not_delivered(
    serve: Serve,
) -> None:
    runner = EngineRunner(FakeEngine())

    account = await cancelled_after(runner, serve, 1.5 * STEP, max_tokens=50, sending=1.0)

    assert account.cancelled_in is Phase.SENDING
    assert (account.produced, account.delivered, account.undelivered) == (2, 0, 2)


async def test_a_request_that_was_never_admitted_can_be_cut_short_too() -> None:
    runner = EngineRunner(FakeEngine())
    source = CancelSource()

    with runner.accept(request_id="cut", token=source.token):
        await anyio.sleep(1)
        source.cancel(Reason.CLIENT_DISCONNECT)
    await runner.in_flight.wait_idle()

    account = find(runner, "cut")
    assert (account.phase, account.cancelled_in) == (Phase.CANCELLED, Phase.READING)
    assert (account.told_after, account.proof, account.produced) == (None, None, 0)
    assert account.seconds[Phase.READING] == pytest.approx(1)


async def test_a_cancel_after_the_engine_was_done_aborts_nothing() -> None:
    engine = FakeEngine()
    runner = EngineRunner(engine)
    source = CancelSource()

    with runner.accept(request_id="late", token=source.token) as call:
        call.admit(GenerationRequest(prompt="w", max_tokens=3))
        assert (await call.read())[0].text
        await anyio.sleep(1)  # the answer is on its way, and its client is slow
        source.cancel(Reason.CLIENT_DISCONNECT)
    await runner.in_flight.wait_idle()

    account = find(runner, "late")
    assert (account.phase, account.cancelled_in) == (Phase.CANCELLED, Phase.SENDING)
    assert (account.produced, account.delivered, account.undelivered) == (3, 0, 3)
    assert (account.told_after, account.saved) == (None, 0)
    record = engine.log.request("late")
    assert record is not None
    assert record.aborts == 0


async def test_the_phase_in_flight_can_be_watched(serve: Serve) -> None:
    runner = EngineRunner(FakeEngine(slots=1))
    seen: list[Phase] = []

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: serve(runner, max_tokens=2))
        await anyio.sleep(STEP / 2)
        tasks.start_soon(
            lambda: serve(runner, request_id="w", prompt="w " * 600, max_tokens=9, sending=STEP / 2)
        )
        for _ in range(6):
            await anyio.sleep(STEP / 2)
            seen.append(find(runner, "w").phase)
            await anyio.sleep(STEP / 2)

    assert list(dict.fromkeys(seen)) == ["queued", "prefill", "decode"]


async def test_an_engine_that_dies_fails_its_requests(serve: Serve) -> None:
    runner = EngineRunner(FakeEngine(lie="crash:3"))

    served = await serve(runner, max_tokens=50)
    await runner.in_flight.wait_idle()

    assert isinstance(served.error, EngineFailed)
    account = find(runner, served.id)
    assert (account.phase, account.reason) == (Phase.FAILED, Reason.ENGINE_FAILED)
    assert account.produced == account.delivered == 2
    assert runner.statistics().failed == 1
    assert runner.not_ready() == "engine fake has failed"


async def test_an_error_of_the_server_aborts_what_runs_for_nobody() -> None:
    engine = FakeEngine()
    runner = EngineRunner(engine)

    with suppress(ZeroDivisionError), runner.accept(request_id="bug") as call:
        call.admit(GenerationRequest(prompt="w", max_tokens=100))
        async for _ in call.stream():
            raise ZeroDivisionError
    await runner.in_flight.wait_idle()

    account = find(runner, "bug")
    assert (account.phase, account.reason) == (Phase.CANCELLED, Reason.ERROR)
    assert engine.statistics().running == 0


async def test_an_error_of_the_server_after_the_engine_was_done_is_a_failure_with_whole_books() -> (
    None
):
    runner = EngineRunner(FakeEngine())

    with suppress(ZeroDivisionError), runner.accept(request_id="bug") as call:
        call.admit(GenerationRequest(prompt="w", max_tokens=10))
        async for _ in call.stream():
            await anyio.sleep(1)
            raise ZeroDivisionError
    await runner.in_flight.wait_idle()

    account = find(runner, "bug")
    assert (account.phase, account.reason) == (Phase.FAILED, Reason.ERROR)
    assert (account.produced, account.delivered, account.undelivered) == (10, 0, 10)
    assert runner.statistics().violations == 0


async def test_a_task_that_is_cancelled_aborts_what_runs_for_nobody(serve: Serve) -> None:
    engine = FakeEngine()
    runner = EngineRunner(engine)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: serve(runner, request_id="cut", max_tokens=100))
        await anyio.sleep(2.5 * STEP)
        tasks.cancel_scope.cancel()
    await runner.in_flight.wait_idle()

    assert find(runner, "cut").reason is Reason.REQUESTED
    assert engine.statistics().running == 0


async def test_a_generation_that_the_engine_gave_up_itself_is_booked_with_its_cause(
    serve: Serve,
) -> None:
    engine = FakeEngine()
    runner = EngineRunner(engine)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: serve(runner, request_id="cut", max_tokens=100))
        await anyio.sleep(2.5 * STEP)
        await engine.aclose()
    await runner.in_flight.wait_idle()

    assert find(runner, "cut").reason is Reason.DRAIN
    assert runner.statistics().violations == 0


async def test_an_answer_that_ends_before_its_output_is_cut_short() -> None:
    engine = FakeEngine()
    runner = EngineRunner(engine)

    with runner.accept(request_id="short") as call:
        call.admit(GenerationRequest(prompt="w", max_tokens=100))
        await anext(call.stream())
        await call.complete()
    await runner.in_flight.wait_idle()

    account = find(runner, "short")
    assert (account.phase, account.reason) == (Phase.CANCELLED, Reason.ERROR)
    assert engine.statistics().running == 0


async def test_what_was_not_admitted_is_not_complete() -> None:
    runner = EngineRunner(FakeEngine())

    with runner.accept() as call, pytest.raises(UsageBug, match="admit"):
        await call.complete()


async def test_output_cannot_be_read_before_it_was_admitted() -> None:
    runner = EngineRunner(FakeEngine())

    with runner.accept() as call, pytest.raises(UsageBug, match="admit"):
        call.stream()


async def test_a_deadline_cuts_it_short() -> None:
    runner = EngineRunner(FakeEngine(), request_timeout=10.5 * STEP)

    with runner.accept(request_id="slow") as call:
        call.admit(GenerationRequest(prompt="w", max_tokens=100))
        with pytest.raises(StreamCancelled):
            await call.read()
    await runner.in_flight.wait_idle()

    account = find(runner, "slow")
    assert (account.reason, account.produced) == (Reason.DEADLINE, 11)


@pytest.mark.parametrize("lie", [None, *LIES])
@pytest.mark.parametrize("kill", [False, True], ids=["without force", "with force"])
async def test_books_of_a_random_crowd_balance_to_the_token(
    serve: Serve, lie: str | None, kill: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, logger="streamkit")
    dice = random.Random(7)
    engine = FakeEngine(lie=lie, kill=kill, speculative=3)
    runner = EngineRunner(engine)

    async def one() -> None:
        source = CancelSource()
        with anyio.move_on_after(dice.choice([None, dice.random() * 2])) as left:
            await serve(
                runner,
                source,
                prompt="w " * dice.choice([1, 2000]),
                max_tokens=dice.randint(1, 60),
                n=dice.choice([1, 1, 3]),
                sending=dice.choice([0.0, 0.01]),
            )
        if left.cancelled_caught:
            source.cancel(Reason.CLIENT_DISCONNECT)

    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(one)
            await anyio.sleep(STEP)
    await runner.in_flight.wait_idle()
    await anyio.sleep(60)  # what was given up comes to its own end

    totals = runner.statistics()
    assert totals.received == 100
    assert totals.started == totals.finished + totals.cancelled + totals.failed
    assert totals.violations == 0
    assert totals.quarantined == 0
    assert total(runner, "produced") == engine.statistics().tokens
    assert total(runner, "produced") == total(runner, "delivered") + total(runner, "undelivered")
    await runner.aclose()


async def test_a_request_that_was_given_up_is_followed_to_its_end(serve: Serve) -> None:
    engine = FakeEngine(lie="ignore_abort")
    runner = EngineRunner(engine)

    account = await cancelled_after(runner, serve, 2.5 * STEP, max_tokens=300)

    assert account.phase is Phase.QUARANTINED
    assert account.misbehaviour is Misbehaviour.IGNORED
    assert account.steps[-2:] == ("quarantine", "report")
    assert runner.statistics().quarantined == 1
    assert runner.statistics().cancelled == 1
    produced_then, age_then = account.produced, account.age

    await anyio.sleep(1)
    assert total(runner, "produced") == engine.statistics().tokens > produced_then

    await anyio.sleep(10)
    account = find(runner, "cut")
    assert account.phase is Phase.CANCELLED
    assert account.produced == engine.statistics().tokens == 300
    assert account.steps[-1] == "report"
    assert account.age == age_then  # until it was given up: nobody waited any longer
    totals = runner.statistics()
    assert (totals.quarantined, totals.cancelled, totals.violations) == (0, 1, 0)


async def test_an_engine_that_keeps_back_what_it_makes_after_the_cancel_is_still_in_the_books(
    serve: Serve,
) -> None:
    engine = FakeEngine(lie="ack_and_run_on")
    runner = EngineRunner(engine)

    account = await cancelled_after(runner, serve, 2.5 * STEP, max_tokens=60)

    assert (account.produced, account.delivered, account.undelivered) == (60, 2, 58)
    assert runner.statistics().violations == 0


class Forgetful(FakeEngine):
    """Its own count is wrong by one."""

    def open(self, *args, **kwargs):
        generation = super().open(*args, **kwargs)
        wait_stopped = generation.wait_stopped

        class Handle:
            def __getattr__(self, name):
                return getattr(generation, name)

            async def wait_stopped(self, timeout=None):
                report = await wait_stopped(timeout)
                return replace(report, tokens_made=report.tokens_made + 1)

        return Handle()


async def test_books_that_do_not_balance_are_an_error_with_all_numbers(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    runner = EngineRunner(Forgetful())

    await serve(runner, request_id="odd", max_tokens=5)

    assert runner.statistics().violations == 1
    [record] = [r for r in caplog.records if r.name == "streamkit.ledger"]
    assert record.levelname == "ERROR"
    assert record.getMessage() == (
        "the books do not balance: request odd (finished): the engine made 6 tokens, but 5 were "
        "delivered and 0 were not"
    )


async def test_a_request_that_is_lost_is_an_error_with_all_numbers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ledger = Ledger()
    lost, kept = ledger.open("lost"), ledger.open("kept")
    kept.fail(Reason.ERROR, "", None)
    ledger.refuse(lost, "invalid")
    ledger.close(kept)
    assert ledger.totals().violations == 0

    ledger._received += 1
    other = ledger.open("other")
    other.fail(Reason.ERROR, "", None)
    ledger.close(other)

    assert ledger.totals().violations == 1
    assert "3 requests started, but 0 finished, 0 were cancelled, 2 failed and 0 are running" in (
        caplog.text
    )


async def test_snapshots_do_not_change() -> None:
    runner = EngineRunner(FakeEngine())

    with runner.accept(request_id="live") as call:
        call.admit(GenerationRequest(prompt="w", max_tokens=10))
        before, totals = call.account(), runner.statistics()
        await call.read()
        await call.complete()

    assert (before.phase, before.produced) == (Phase.READING, 0)
    assert (totals.running, totals.finished) == (1, 0)
    assert now() == pytest.approx(10 * STEP)
