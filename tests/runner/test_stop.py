"""A request that ends at a stop string has finished: its engine is stopped, and nobody cut it."""

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from streamkit._core import CancelSource, Phase, Reason
from streamkit.engines import Chunk, FakeEngine, GenerationRequest, LadderLimits
from streamkit.errors import EngineFailed, StreamCancelled
from streamkit.runner import Account, Call, EngineRunner

STEP = 0.02
SHORT = LadderLimits(stop_bound=0.1, again_bound=0.1, kill_bound=0.1)


def request(**options: Any) -> GenerationRequest:
    """The fake engine says: high low hard call list."""
    return GenerationRequest(
        **{"prompt": "a b c", "max_tokens": 500, "stop": (" hard",), **options}
    )


async def ask(runner: EngineRunner, *requests: GenerationRequest, stream: bool = True) -> list[str]:
    """The texts of the choices."""
    texts: dict[int, str] = {}
    with runner.accept(request_id="r") as call:
        call.admit(*requests)
        for chunk in [chunk async for chunk in call.chunks()] if stream else await call.read():
            texts[chunk.index] = texts.get(chunk.index, "") + chunk.text
        await call.complete()
    return [texts[index] for index in sorted(texts)]


async def ended(runner: EngineRunner) -> Account:
    await runner.in_flight.wait_idle()
    account = runner.find("r")
    assert account is not None
    assert account.produced == account.delivered + account.undelivered
    assert runner.statistics().violations == 0
    return account


@pytest.mark.parametrize("stream", [True, False])
async def test_it_has_finished_and_its_engine_is_proved_stopped(stream: bool) -> None:
    engine = FakeEngine()
    runner = EngineRunner(engine)

    assert await ask(runner, request(), stream=stream) == ["high low"]

    account = await ended(runner)
    assert (account.phase, account.reason, account.cancelled_in) == (Phase.FINISHED, None, None)
    assert (account.told_after, account.proof.word, account.steps) == (0.0, "observed", ())
    assert account.proved_after == pytest.approx(STEP)
    # The chunk with the stop string is delivered; the step that ran when it came is not.
    assert (account.produced, account.delivered, account.wasted) == (4, 3, 1)
    assert account.saved == 500 - 4
    assert engine.log.request("r").aborts == 1
    assert engine.statistics().running == 0
    assert runner.statistics().finished == 1


async def test_a_choice_that_has_ended_waits_for_the_others_and_is_counted() -> None:
    runner = EngineRunner(FakeEngine())
    whole = await ask(runner, request(n=2, max_tokens=12, stop=()))
    other = whole[1].split()[9]
    assert other not in whole[0].split()[:9]

    texts = await ask(runner, request(n=2, stop=(" hard", f" {other}")))

    account = await ended(runner)
    assert texts[0] == "high low"
    assert whole[1].startswith(texts[1])
    assert account.phase is Phase.FINISHED
    assert account.delivered + account.wasted < account.produced  # what came of the first, after it
    assert account.saved == 1000 - account.produced


async def test_an_engine_that_does_not_stop_is_seen_and_amended_when_it_does() -> None:
    engine = FakeEngine(lie="ignore_abort", limits=SHORT)
    runner = EngineRunner(engine)

    assert await ask(runner, request(max_tokens=100)) == ["high low"]

    account = await ended(runner)
    assert (account.phase, account.given_up) == (Phase.FINISHED, True)
    assert account.steps[-2:] == ("quarantine", "report")
    assert runner.statistics().quarantined == 1
    assert runner.in_flight.choose_id("r") != "r"  # the engine knows it by that id
    await anyio.sleep(3)

    account = await ended(runner)
    assert (account.phase, account.given_up, account.produced) == (Phase.FINISHED, False, 100)
    totals = runner.statistics()
    assert (totals.finished, totals.quarantined) == (1, 0)
    assert sum(sums.produced for sums in totals.ended.values()) == engine.log.tokens
    assert runner.in_flight.choose_id("r") == "r"


async def leave_at(call: Call, source: CancelSource, is_last: Callable[[Chunk], object]) -> None:
    async for chunk in call.chunks():
        if is_last(chunk):
            source.cancel(Reason.CLIENT_DISCONNECT)


async def test_who_leaves_before_the_last_chunk_has_left() -> None:
    engine = FakeEngine()
    runner = EngineRunner(engine)
    source = CancelSource()

    with runner.accept(request_id="r", token=source.token) as call:
        call.admit(request())
        with pytest.raises(StreamCancelled):
            await leave_at(call, source, lambda chunk: chunk.finish_reason)

    account = await ended(runner)
    assert (account.phase, account.reason) == (Phase.CANCELLED, Reason.CLIENT_DISCONNECT)
    assert account.told_after >= 0
    assert engine.log.request("r").aborts == 1


async def test_who_leaves_after_the_answer_changes_nothing() -> None:
    runner = EngineRunner(FakeEngine())
    source = CancelSource()

    with runner.accept(request_id="r", token=source.token) as call:
        call.admit(request())
        await call.read()
        await call.complete()
        assert runner.cancel("r") == "already_finished"
        source.cancel(Reason.CLIENT_DISCONNECT)

    assert (await ended(runner)).reason is None


# -- several prompts ---------------------------------------------------------------------------


async def test_prompts_run_side_by_side_and_their_choices_are_numbered_through() -> None:
    runner = EngineRunner(FakeEngine())
    alone = [
        text
        for prompt in ("a b c", "d e")
        for text in await ask(runner, request(prompt=prompt, n=2, max_tokens=4, stop=()))
    ]
    began = anyio.current_time()

    both = [request(prompt=prompt, n=2, max_tokens=4, stop=()) for prompt in ("a b c", "d e")]
    assert await ask(runner, *both) == alone

    assert anyio.current_time() - began == pytest.approx(4 * STEP)
    account = await ended(runner)
    assert (account.prompt_tokens, account.delivered, account.phase) == (5, 16, Phase.FINISHED)


async def test_a_prompt_that_stops_early_frees_its_slot() -> None:
    engine = FakeEngine()
    runner = EngineRunner(engine)

    with runner.accept(request_id="r") as call:
        call.admit(request(), request(prompt="d e", stop=("never",)))
        async for chunk in call.chunks():
            if chunk.index == 0 and chunk.finish_reason:
                break
        await anyio.sleep(2 * STEP)
        assert engine.statistics().running == 1

    account = await ended(runner)
    assert account.phase is Phase.CANCELLED
    assert engine.statistics().running == 0


async def test_who_leaves_leaves_all_prompts() -> None:
    engine = FakeEngine()
    runner = EngineRunner(engine)
    source = CancelSource()

    with runner.accept(request_id="r", token=source.token) as call:
        call.admit(request(stop=()), request(prompt="d e", stop=()))
        with pytest.raises(StreamCancelled):
            await leave_at(call, source, lambda chunk: chunk.index == 1)

    account = await ended(runner)
    assert [engine.log.request(f"r#{number}").aborts for number in (0, 1)] == [1, 1]
    assert account.reason is Reason.CLIENT_DISCONNECT
    assert (account.told_after, account.proof.word) == (0.0, "observed")
    assert account.produced == engine.log.tokens


async def test_an_engine_that_dies_fails_all_prompts() -> None:
    runner = EngineRunner(FakeEngine(lie="crash:3"))

    with pytest.raises(EngineFailed):
        await ask(runner, request(stop=()), request(prompt="d e", stop=()))

    account = await ended(runner)
    assert account.phase in {Phase.FAILED, Phase.CANCELLED}
    assert account.reason is Reason.ENGINE_FAILED
