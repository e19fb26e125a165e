"""The adapter for servers of OpenAI's API, on real sockets: streamkit's own, and bad ones."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest

from streamkit._core import Cancellation, wait_held
from streamkit.engines import (
    Chunk,
    Generation,
    GenerationRequest,
    LadderLimits,
    Message,
    Misbehaviour,
    Outcome,
    Proof,
    Sampling,
    StopReport,
    UpstreamEngine,
    build,
    prove_stopped,
)
from streamkit.errors import BadPayload, EngineFailed, MissingPackage, RequestRefused
from streamkit.testing import CheckPlan, check_engine
from tests.engine_reports import keep
from tests.server.serving import Served, serving

from .bad_upstream import STEP, Upstream, bad_upstream

pytestmark = pytest.mark.realtime
Ask = Callable[..., Cancellation]
Make = Callable[..., UpstreamEngine]

LONG = 600  # tokens, more than a second of the bad upstream's
LIMIT = 10.0
IMPATIENT = LadderLimits(stop_bound=0.2, again_bound=0.2, kill_bound=0.2)


@pytest.fixture(scope="module")
def bad() -> Iterator[Upstream]:
    with bad_upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(slots=2, step_ms=5) as server:
        yield server


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Make an engine; it is closed at the end."""
    engines: list[UpstreamEngine] = []

    def made(url: str, **options: Any) -> UpstreamEngine:
        engines.append(UpstreamEngine(url, **{"model": "m", **options}))
        return engines[-1]

    yield made
    for engine in engines:
        await engine.aclose()
    await wait_held(LIMIT)


async def read(generation: Generation) -> list[Chunk]:
    return [chunk async for chunk in generation]


async def said(generation: Generation) -> str:
    return "".join(chunk.text for chunk in await read(generation))


async def begun(engine: UpstreamEngine, tokens: int = LONG) -> Generation:
    """A generation that has its first token."""
    generation = engine.generate("a b c", max_tokens=tokens)
    await anext(generation)
    return generation


async def cut(engine: UpstreamEngine, generation: Generation, asked: Ask) -> StopReport:
    generation.cancel(asked())
    assert await read(generation) == []
    return await prove_stopped(generation, engine)


async def books(served: Served) -> dict[str, Any]:
    return await anyio.to_thread.run_sync(served.get, "/v1/engine")


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(LIMIT):
        while not condition():  # noqa: ASYNC110 - the other thread has no event
            await anyio.sleep(STEP)


# -- answers ---------------------------------------------------------------------------------------


async def test_an_answer_is_that_of_the_upstream(make: Make, served: Served) -> None:
    engine = make(f"{served.url}/v1")
    direct = served.generate(max_tokens=5).json()

    generation = engine.generate("a b c", max_tokens=5)
    chunks = await read(generation)

    assert "".join(chunk.text for chunk in chunks) == direct["text"]
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["length"]
    usage = generation.usage
    assert (usage.prompt_tokens, usage.handed_over, usage.discarded) == (3, 5, 0)
    report = await generation.wait_stopped()
    assert (report.outcome, report.tokens_made) == (Outcome.FINISHED, 5)


async def test_messages_take_the_other_route_and_choices_are_told_apart(
    make: Make, served: Served
) -> None:
    engine = make(f"{served.url}/v1")
    request = GenerationRequest(
        messages=(Message("user", "a b c"),),
        max_tokens=4,
        n=2,
        stop=(" and",),
        sampling=Sampling(seed=3, logprobs=1),
    )
    body = {
        "messages": [{"role": "user", "content": "a b c"}],
        "max_tokens": 4,
        "n": 2,
        "stop": " and",
        "seed": 3,
    }
    asked = await anyio.to_thread.run_sync(
        lambda: httpx.post(f"{served.url}/v1/chat/completions", json=body)
    )

    chunks = await read(engine.open(request))

    texts = ["", ""]
    for chunk in chunks:
        texts[chunk.index] += chunk.text
    choices = asked.json()["choices"]
    assert texts == [choice["message"]["content"] for choice in choices]
    told = [(each.token, len(each.top)) for each in chunks[0].logprobs]
    assert told == [(chunks[0].text, 1)]


async def test_all_that_is_asked_reaches_the_upstream(make: Make, bad: Upstream) -> None:
    engine = make(
        bad.url("merged"),
        model="some-model",
        api_key="sesame",
        extra_body='{"rid": "r-{id}", "top_k": 5}',
    )
    sampling = Sampling(
        temperature=0.5,
        top_p=0.9,
        seed=1,
        frequency_penalty=0.1,
        presence_penalty=0.2,
        logprobs=3,
    )
    text = GenerationRequest(prompt_ids=(1, 2), max_tokens=9, stop=("x",), sampling=sampling)
    chat = GenerationRequest(messages=(Message("system", "be"), Message("user", "a")))

    await read(engine.open(text, request_id="mine"))
    name = bad.headers["x-request-id"]
    assert bad.headers["authorization"] == "Bearer sesame"
    await read(engine.open(chat))

    common = {"model": "some-model", "stream": True, "stream_options": {"include_usage": True}}
    values = {"temperature": 0.5, "top_p": 0.9, "seed": 1}
    values |= {"frequency_penalty": 0.1, "presence_penalty": 0.2, "logprobs": 3}
    extra = {"rid": f"r-{name}", "top_k": 5}
    [first, second] = bad.asked[-2:]
    assert first == common | values | extra | {"prompt": [1, 2], "max_tokens": 9, "stop": ["x"]}
    assert second["messages"] == [
        {"role": "system", "content": "be"},
        {"role": "user", "content": "a"},
    ]
    assert not {"prompt", "max_tokens", "n", "stop", "temperature", "logprobs"} & set(second)


@pytest.mark.parametrize(
    ("manner", "text", "tokens"),
    [
        ("no_done", "one two", 2),
        ("tgi", "one", 1),
        ("merged", "one two three", 5),  # by the upstream's own count
        ("odd_bytes", "\u00e9 end", 2),
        ("reasons", "so", 2),  # what it thought was made, and is not the answer
    ],
)
async def test_a_whole_answer_is_understood(
    make: Make, bad: Upstream, manner: str, text: str, tokens: int
) -> None:
    generation = make(bad.url(manner)).generate("w")

    assert await said(generation) == text
    assert generation.usage.handed_over == tokens


async def test_a_connection_is_used_again(make: Make, bad: Upstream) -> None:
    engine = make(bad.url("merged"))
    generations = [engine.generate("w") for _ in range(3)]

    for generation in generations:
        await read(generation)

    [pooled] = engine._http._client._transport._pool.connections
    assert "Request Count: 3" in repr(pooled)


# -- what goes wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("manner", "error", "message"),
    [
        ("bad_request", BadPayload, "^it is too long$"),
        ("unprocessable", BadPayload, "loc"),
        ("refuses_late", BadPayload, "^it is too long$"),
        ("unauthorized", EngineFailed, "answered 401: no such key"),
        ("not_found", EngineFailed, "answered 404: no such model"),
        ("too_many", RequestRefused, "answered 429: slow down"),
        ("overloaded", RequestRefused, "answered 503: busy"),
        ("breaks", EngineFailed, "answered 500: x{500}$"),
        ("bad_gateway", EngineFailed, "answered 502: Bad Gateway"),
        ("redirects", EngineFailed, "answered 307: Temporary Redirect"),
        ("json", EngineFailed, "asked for a stream and sent application/json"),
        ("slow_header", EngineFailed, "said nothing for 0.2 s"),
        ("silent", EngineFailed, "said nothing for 0.2 s"),
        ("dies", EngineFailed, "broke off"),
        ("no_json", EngineFailed, "none of OpenAI's: '{nope'"),
        ("no_object", EngineFailed, "none of OpenAI's"),
        ("no_choices", EngineFailed, "none of OpenAI's"),
        ("no_utf8", EngineFailed, "no UTF-8"),
        ("endless", EngineFailed, "more than 1048576 bytes"),
        ("no_end", EngineFailed, "without a finish reason"),
        ("cut_short", EngineFailed, "without a finish reason"),
        ("error", EngineFailed, "answered 500: out of memory"),
        ("aborted", EngineFailed, "ended choice 0 with 'abort'"),
    ],
)
async def test_each_failure_says_who_has_to_act(
    make: Make, bad: Upstream, manner: str, error: type[Exception], message: str
) -> None:
    engine = make(bad.url(manner), read_timeout=0.2)
    before = len(bad.asked)

    with pytest.raises(error, match=message):
        await read(engine.generate("w"))

    assert len(bad.asked) == before + 1, "what has begun is never sent again"
    assert (engine.failure, engine.statistics().running) == (None, 0)


async def test_a_refusal_says_when_to_come_back(make: Make, bad: Upstream) -> None:
    for manner, status, seconds in (("too_many", 429, 7.0), ("overloaded", 503, 1.0)):
        with pytest.raises(RequestRefused) as refused:
            await read(make(bad.url(manner)).generate("w"))

        assert (refused.value.status, refused.value.retry_after) == (status, seconds)


async def test_an_upstream_that_is_not_there_is_503_and_may_come_back(
    make: Make, unused_tcp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make(f"http://user:secret@127.0.0.1:{unused_tcp_port}/v1")

    with pytest.raises(RequestRefused, match=f"127.0.0.1:{unused_tcp_port} cannot be") as refused:
        await read(engine.generate("w"))

    assert refused.value.status == 503
    assert engine.failure is None
    assert "secret" not in caplog.text + str(refused.value)
    assert "cannot be reached" in caplog.text


async def test_a_failed_answer_leaves_nothing_running(make: Make, bad: Upstream) -> None:
    engine = make(bad.url("silent"), read_timeout=0.1, slots=1)

    for _ in range(3):
        with pytest.raises(EngineFailed):
            await read(engine.generate("w"))

    statistics = engine.statistics()
    assert (statistics.running, statistics.queued, statistics.steps) == (0, 0, 3)


# -- leaving ---------------------------------------------------------------------------------------


async def test_to_leave_closes_the_connection_and_stops_the_engine_behind(
    make: Make, served: Served, asked: Ask
) -> None:
    engine = make(f"{served.url}/v1")

    report = await cut(engine, await begun(engine, 100_000), asked)

    assert (report.proof, report.misbehaviour) == (Proof.CLOSED, None)
    with anyio.fail_after(LIMIT):
        while (await books(served))["running"]:
            pass
    steps = (await books(served))["steps"]
    await anyio.sleep(0.1)  # twenty steps
    assert (await books(served))["steps"] == steps


async def test_in_the_queue_here_nobody_has_heard_of_it(
    make: Make, bad: Upstream, asked: Ask
) -> None:
    engine = make(bad.url("listens"), slots=1)
    running = await begun(engine)
    waiting = engine.generate("w")
    before = len(bad.asked)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, waiting)
        await until(lambda: engine.statistics().queued == 1)
        waiting.cancel(asked())
        report = await prove_stopped(waiting, engine)

    assert (report.proof, len(bad.asked)) == (Proof.JOINED, before)
    assert engine.statistics().queued == 0
    assert (await cut(engine, running, asked)).proof is Proof.CLOSED
    assert await said(engine.generate("w", max_tokens=1)) == "w0 "


async def test_an_abort_is_posted_behind_the_close(make: Make, bad: Upstream, asked: Ask) -> None:
    root = bad.url("listens").removesuffix("/v1")
    engine = make(bad.url("listens"), abort_url=f"{root}/abort")

    generation = await begun(engine)
    name = bad.headers["x-request-id"]
    report = await cut(engine, generation, asked)
    await until(lambda: bool(bad.aborted))

    assert bad.aborted.pop() == {"request_ids": [f"cmpl-{name}-0", f"chatcmpl-{name}"]}
    assert (report.proof, report.error) == (Proof.CLOSED, None)


async def test_an_abort_that_fails_is_in_the_log(
    make: Make, bad: Upstream, asked: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    root = bad.url("fails").removesuffix("/v1")
    engine = make(bad.url("listens"), abort_url=f"{root}/abort", abort_body='{"rid": "{id}"}')

    await cut(engine, await begun(engine), asked)
    await wait_held(LIMIT)

    [posted] = bad.aborted
    bad.aborted.clear()
    assert posted == {"rid": bad.headers["x-request-id"]}
    assert "the upstream answered 500" in caplog.text


# -- proof -----------------------------------------------------------------------------------------


async def test_the_canary_proves_that_an_upstream_stopped(
    make: Make, bad: Upstream, asked: Ask
) -> None:
    engine = make(bad.url("listens"), slots=1, proof="canary")
    await engine.load()

    for _ in range(3):
        report = await cut(engine, await begun(engine, 100_000), asked)

        assert (report.proof, report.misbehaviour, report.steps) == (Proof.FENCED, None, ())
    assert engine.capabilities.proof is Proof.FENCED
    assert engine.statistics().running == 0


async def test_the_canary_reports_an_upstream_that_runs_on(
    make: Make, bad: Upstream, asked: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make(bad.url("runs_on"), slots=1, proof="canary", limits=IMPATIENT)
    await engine.load()
    assert "seems to ignore clients that leave" in caplog.text
    generation = await begun(engine)
    steps = bad.steps

    report = await cut(engine, generation, asked)

    assert (report.outcome, report.misbehaviour) == (Outcome.RUNNING, Misbehaviour.IGNORED)
    assert report.proof is Proof.CLOSED
    assert bad.steps > steps
    statistics = engine.statistics()
    assert (statistics.running, statistics.quarantined) == (1, 1)
    assert statistics.misbehaviours == {Misbehaviour.IGNORED: 1}
    # When its answer has come to its end, a canary gets through, and the slot is back.
    late = await generation.wait_stopped(LIMIT)
    assert (late.outcome, late.proof) == (Outcome.CANCELLED, Proof.FENCED)
    assert (engine.statistics().running, engine.statistics().quarantined) == (0, 0)
    assert await said(engine.generate("w", max_tokens=1)) == "w0 "


async def test_nobody_is_sent_behind_one_that_may_still_run(
    make: Make, bad: Upstream, asked: Ask
) -> None:
    engine = make(bad.url("runs_on"), slots=1, proof="canary", limits=IMPATIENT)
    await engine.load()
    generation = await begun(engine)
    generation.cancel(asked())
    before = len(bad.asked)
    got: list[str] = []

    async with anyio.create_task_group() as tasks:

        async def read_next() -> None:
            got.append(await said(engine.open(GenerationRequest(prompt="next", max_tokens=2))))

        tasks.start_soon(read_next)
        await prove_stopped(generation, engine)
        assert not [body for body in bad.asked[before:] if body["prompt"] == "next"]

    assert got == ["w0 w1 "]
    assert (await generation.wait_stopped()).proof is Proof.FENCED


async def test_a_canary_is_refused_where_it_would_prove_nothing(make: Make, bad: Upstream) -> None:
    with pytest.raises(ValueError, match="proof=canary needs slots=1, got 64"):
        make(bad.url("listens"), proof="canary")
    with bad_upstream(slots=2) as two_slots:
        engine = make(two_slots.url("listens"), slots=1, proof="canary")
        with pytest.raises(EngineFailed, match="more than one slot, so that a canary proves noth"):
            await engine.load()
        with pytest.raises(RequestRefused, match="not loaded"):
            await read(engine.generate("w"))


async def test_an_answer_that_is_too_short_to_tell_is_said(
    make: Make, bad: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make(bad.url("no_done"), slots=1, proof="canary")

    await engine.load()

    assert "taken on trust" in caplog.text


async def test_the_books_of_a_streamkit_prove_it(make: Make, served: Served, asked: Ask) -> None:
    engine = make(f"{served.url}/v1", proof="streamkit")
    await engine.load()
    others = [await begun(engine, 100_000) for _ in range(2)]  # more than a canary could bear

    report = await cut(engine, others[0], asked)

    assert (report.proof, report.misbehaviour) == (Proof.OBSERVED, None)
    assert engine.statistics().running == 1
    assert (await cut(engine, others[1], asked)).proof is Proof.OBSERVED


@pytest.mark.parametrize("proof", ["canary", "streamkit"])
async def test_a_streamkit_whose_engine_lies_is_found_out(
    make: Make, asked: Ask, proof: str
) -> None:
    with serving("--drain-grace=0", slots=1, step_ms=2, lie="ignore_abort") as lying:
        engine = make(f"{lying.url}/v1", slots=1, proof=proof, limits=IMPATIENT)
        await engine.load()

        report = await cut(engine, await begun(engine, 1500), asked)

        assert (report.outcome, report.misbehaviour) == (Outcome.RUNNING, Misbehaviour.IGNORED)
        assert engine.statistics().quarantined == 1
        assert (await books(lying))["running"] == 1


async def test_with_the_connection_alone_nothing_more_is_claimed(
    make: Make, bad: Upstream, asked: Ask
) -> None:
    engine = make(bad.url("runs_on"))

    report = await cut(engine, await begun(engine), asked)

    assert (report.outcome, report.proof) == (Outcome.CANCELLED, Proof.CLOSED)
    await until(lambda: bad.busy == 0)


async def test_it_passes_the_conformance_kit(served: Served) -> None:
    async def ready() -> UpstreamEngine:
        engine = UpstreamEngine(f"{served.url}/v1", slots=2, proof="streamkit")
        await engine.load()
        return engine

    plan = CheckPlan(
        answer_tokens=2000,
        cancels=40,
        canary_slack=0.5,
        wake_bound=1.0,
        bound=2.0,
        slots=2,
        untried=(
            "frequency_penalty",
            "presence_penalty",
        ),  # the server behind has none, and says so
    )
    with anyio.fail_after(120):
        report = await check_engine(ready, plan)

    await keep(report, "upstream", "httpx2")
    report.raise_if_failed()


# -- loading, options ------------------------------------------------------------------------------


async def test_the_only_model_is_found(make: Make, served: Served) -> None:
    engine = make(f"{served.url}/v1", model=None)
    with pytest.raises(RequestRefused, match="not loaded"):
        await read(engine.generate("w"))

    await engine.load()

    assert await said(engine.generate("w", max_tokens=1))


async def test_of_several_models_one_has_to_be_named(make: Make, bad: Upstream) -> None:
    with pytest.raises(EngineFailed, match=r"has not one model: small, large; name it: model=…"):
        await make(bad.url("small+large"), model=None).load()
    with pytest.raises(EngineFailed, match=r"has not one model: none; name it"):
        await make(bad.url("x/none"), model=None).load()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs to know where: --engine-option base_url=http://HOST:PORT/v1"),
        ({"base_url": "localhost:8000"}, "base_url must be a URL that begins with http://"),
        ({"base_url": "http://"}, "base_url must be a URL"),
        ({"base_url": "http://h/v1?x=1"}, "base_url must be a URL"),
        ({"base_url": "http://h/v1", "proof": "hope"}, "one of closed, canary, streamkit"),
        ({"base_url": "http://h/v1", "abort_body": "[]"}, "abort_body must be a JSON object"),
        ({"base_url": "http://h/v1", "extra_body": "{"}, "extra_body must be a JSON object"),
        ({"base_url": "http://h/v1", "read_timeout": "0"}, "a number from 0.01 to 86400"),
        ({"base_url": "http://h/v1", "api_key": "s\u00e9same"}, "its value is not shown"),
    ],
)
def test_a_mistake_is_named(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        build("upstream", options)

    assert "s\u00e9same" not in str(refused.value)


async def test_the_model_is_its_name() -> None:
    engine = build("upstream", {"base_url": "http://h/v1", "model": "tiny", "slots": "3"})

    assert engine.name == "tiny"
    statistics = engine.statistics()
    assert statistics is not None
    assert statistics.slots == 3
    await engine.aclose()


def test_without_httpx2_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)

    with pytest.raises(MissingPackage, match=r"httpx2, .* not installed: pip install httpx2"):
        UpstreamEngine("http://h/v1")
