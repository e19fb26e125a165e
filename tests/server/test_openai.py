"""OpenAI's routes over an engine: every byte as its API has it, whatever ends the request."""

import json
import re
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from streamkit.engines import Chunk, FakeEngine, GenerationRequest
from streamkit.server.app import Application
from streamkit.testing import Exchange

STEP = 0.02
CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
HELLO = [{"role": "user", "content": "hello there"}]
SAID = "high low hard call list"  # to "a b c"
MINE = {"x-request-id": "r"}
Get = Callable[..., Any]


def ask(app: Application, path: str = TEXT, **body: object) -> Exchange:
    """Keywords that an exchange knows are its own, all others are the body's."""
    known = {"headers", "leaves_after_seconds", "leaves_after_chunks", "stops_reading_after_chunks"}
    options: dict[str, Any] = {name: body.pop(name) for name in known & set(body)}
    default = {"messages": HELLO} if path == CHAT else {"prompt": "a b c"}
    return Exchange(app, path=path, json={"model": "fake", **default, **body}, **options)


async def answer(app: Application, path: str = TEXT, **body: object) -> dict[str, Any]:
    exchange = await ask(app, path, **body).run()
    assert exchange.status == 200, exchange.text
    return json.loads(exchange.data)


async def events(app: Application, path: str = TEXT, **body: object) -> list[dict[str, Any]]:
    exchange = await ask(app, path, stream=True, **body).run()
    assert exchange.status == 200, exchange.text
    assert exchange.headers_received["content-type"] == "text/event-stream; charset=utf-8"
    *said, done = [event.data for event in exchange.events]
    assert done == "[DONE]"
    return [json.loads(each) for each in said]


async def refused(app: Application, path: str = TEXT, **body: object) -> dict[str, Any]:
    exchange = await ask(app, path, **body).run()
    assert exchange.status == 400, exchange.text
    error = json.loads(exchange.data)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return error


def text_of(said: list[dict[str, Any]], index: int = 0) -> str:
    choices = [each for event in said for each in event["choices"] if each["index"] == index]
    return "".join(
        each["text"] if "text" in each else each["delta"].get("content", "") for each in choices
    )


# -- whole answers -----------------------------------------------------------------------------


async def test_a_chat_is_answered_whole(make_app) -> None:
    said = await answer(make_app(), CHAT, max_tokens=3, headers=MINE)

    created = said.pop("created")
    assert created > 1_700_000_000
    [choice] = said.pop("choices")
    content = choice["message"].pop("content")
    assert len(content.split()) == 3
    assert choice == {
        "index": 0,
        "message": {"role": "assistant", "refusal": None},
        "logprobs": None,
        "finish_reason": "length",
    }
    assert said == {
        "id": "chatcmpl-r",
        "object": "chat.completion",
        "model": "fake",
        "usage": {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7},
    }


async def test_a_prompt_is_answered_whole(make_app) -> None:
    said = await answer(make_app(), max_tokens=5, headers=MINE)

    del said["created"]
    assert said == {
        "id": "cmpl-r",
        "object": "text_completion",
        "model": "fake",
        "choices": [{"index": 0, "text": SAID, "logprobs": None, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
    }


async def test_choices_of_several_prompts_are_numbered_through(make_app) -> None:
    app = make_app()
    alone = [
        choice["text"]
        for prompt in ("a b c", "d")
        for choice in (await answer(app, prompt=prompt, max_tokens=4, n=2))["choices"]
    ]
    began = anyio.current_time()

    said = await answer(app, prompt=["a b c", "d"], max_tokens=4, n=2)

    assert anyio.current_time() - began == pytest.approx(4 * STEP)
    assert [(each["index"], each["text"]) for each in said["choices"]] == list(enumerate(alone))
    assert said["usage"] == {"prompt_tokens": 4, "completion_tokens": 16, "total_tokens": 20}


@pytest.mark.parametrize(
    ("prompt", "tokens"), [("a b c", 3), (["a b c"], 3), ([5, 6], 2), ([[5, 6], [7]], 3)]
)
async def test_a_prompt_is_text_or_token_ids_one_or_many(make_app, prompt, tokens: int) -> None:
    said = await answer(make_app(), prompt=prompt, max_tokens=1)

    assert said["usage"]["prompt_tokens"] == tokens


async def test_messages_become_the_prompt_of_an_engine_without_a_template(make_app) -> None:
    app = make_app()
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]},
        {"role": "assistant", "content": "yes?", "refusal": None, "tool_calls": None},
        {"role": "user", "name": "ann", "content": "hello"},
    ]
    joined = "system: Be brief.\nuser: hi\nassistant: yes?\nuser: hello\nassistant:"

    chat = await answer(app, CHAT, messages=messages, max_tokens=5)

    text = await answer(app, prompt=joined, max_tokens=5)
    assert chat["choices"][0]["message"]["content"] == text["choices"][0]["text"]


class Templated(FakeEngine):
    """It has a chat template, stop strings of its own, and keeps what it was asked."""

    asked: GenerationRequest

    @property
    def capabilities(self):
        own = super().capabilities
        return type(own)(
            **{
                **{name: getattr(own, name) for name in own.__dataclass_fields__},
                "takes": own.takes | {"messages", "stop"},
            }
        )

    def open(self, request: GenerationRequest, **options: Any):
        self.asked = request
        return super().open(request, **options)


async def test_an_engine_gets_what_it_takes_as_it_was_asked(make_app) -> None:
    engine = Templated()
    app = make_app(engine)

    await answer(
        app,
        CHAT,
        max_completion_tokens=2,
        max_tokens=9,
        n=2,
        stop="never",
        temperature=0,
        top_p=0.5,
        seed=7,
        logprobs=True,
        top_logprobs=3,
        user="u",
        metadata={"a": "b"},
        store=False,
    )

    asked = engine.asked
    assert [(each.role, each.content) for each in asked.messages] == [("user", "hello there")]
    assert (asked.max_tokens, asked.n, asked.stop) == (2, 2, ("never",))
    sampling = asked.sampling
    assert (sampling.temperature, sampling.top_p, sampling.seed) == (0, 0.5, 7)
    assert (sampling.logprobs, sampling.frequency_penalty) == (3, None)


async def test_logprobs_of_a_chat(make_app) -> None:
    said = await answer(make_app(), CHAT, max_tokens=2, logprobs=True, top_logprobs=1)

    [choice] = said["choices"]
    tokens = choice["logprobs"]["content"]
    assert "".join(each["token"] for each in tokens) == choice["message"]["content"]
    first = tokens[0]
    assert bytes(first["bytes"]).decode() == first["token"]
    assert set(first) == {"token", "logprob", "bytes", "top_logprobs"}
    assert first["top_logprobs"] == [{name: first[name] for name in ("token", "logprob", "bytes")}]


async def test_logprobs_of_a_text(make_app) -> None:
    app = make_app()
    said = await answer(app, max_tokens=3, logprobs=1)

    told = said["choices"][0]["logprobs"]
    assert told["tokens"] == ["high", " low", " hard"]
    assert told["text_offset"] == [0, 4, 8]
    assert told["top_logprobs"][1] == {" low": told["token_logprobs"][1]}
    streamed = await events(app, max_tokens=3, logprobs=1)
    pieces = [each["choices"][0]["logprobs"] for each in streamed]
    assert [piece["text_offset"] for piece in pieces if piece] == [[0], [4], [8]]


# -- streams -----------------------------------------------------------------------------------


async def test_a_chat_is_streamed_chunk_by_chunk(make_app) -> None:
    said = await events(make_app(), CHAT, max_tokens=2, headers=MINE)

    for chunk in said:
        assert chunk.pop("created") > 1_700_000_000
        assert list(chunk) == ["id", "object", "model", "choices"]
        assert (chunk["id"], chunk["object"]) == ("chatcmpl-r", "chat.completion.chunk")
        [choice] = chunk["choices"]
        assert (choice["index"], choice["logprobs"]) == (0, None)
    choices = [chunk["choices"][0] for chunk in said]
    deltas = [choice["delta"] for choice in choices]
    assert deltas[0] == {"role": "assistant", "content": "", "refusal": None}
    assert [list(delta) for delta in deltas[1:]] == [["content"], ["content"], []]
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, "length"]


async def test_a_text_is_streamed_chunk_by_chunk(make_app) -> None:
    said = await events(make_app(), max_tokens=2)

    assert {chunk["object"] for chunk in said} == {"text_completion"}
    assert [chunk["choices"] for chunk in said] == [
        [{"index": 0, "text": "high", "logprobs": None, "finish_reason": None}],
        [{"index": 0, "text": " low", "logprobs": None, "finish_reason": None}],
        [{"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}],
    ]


@pytest.mark.parametrize("path", [CHAT, TEXT])
async def test_each_choice_of_a_stream_has_its_own_beginning_and_end(make_app, path: str) -> None:
    app = make_app()
    whole = await answer(app, path, max_tokens=3, n=2)

    said = await events(app, path, max_tokens=3, n=2)

    for choice in whole["choices"]:
        index = choice["index"]
        pieces = [e["choices"][0] for e in said if e["choices"][0]["index"] == index]
        assert text_of(said, index) == choice.get("text", choice.get("message", {}).get("content"))
        assert [p["finish_reason"] for p in pieces] == [None] * (len(pieces) - 1) + ["length"]
        if path == CHAT:
            assert ["role" in p["delta"] for p in pieces] == [True] + [False] * (len(pieces) - 1)


async def test_usage_comes_last_where_it_is_asked_for(make_app) -> None:
    said = await events(make_app(), CHAT, max_tokens=2, stream_options={"include_usage": True})

    assert [chunk["usage"] for chunk in said[:-1]] == [None] * (len(said) - 1)
    assert said[-1]["choices"] == []
    assert said[-1]["usage"] == {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}


async def test_a_request_that_says_null_says_nothing(make_app) -> None:
    fields = ["max_tokens", "n", "stop", "stream", "stream_options", "temperature", "seed", "tools"]

    said = await answer(make_app({"max_tokens": 4}), CHAT, **dict.fromkeys(fields))

    assert said["usage"]["completion_tokens"] == 4


async def test_any_text_survives(make_app) -> None:
    texts = ["line\r\nbreak", "\u2028", "é", "\ud83d", "\ude00", '"\\', "\x00", "data: x\n\n"]

    class Speaks(FakeEngine):
        def open(self, request: GenerationRequest, **options: Any):
            generation = super().open(request, **options)
            run, pieces = generation.run, iter(texts)
            output = run.output
            run.__class__ = type(
                "Run",
                (type(run),),
                {
                    "__slots__": (),
                    "output": lambda self, index, text, *rest: output(index, next(pieces), *rest),
                },
            )
            return generation

    said = await events(make_app(Speaks()), max_tokens=len(texts))

    joined = text_of(said).encode("utf-16", "surrogatepass").decode("utf-16")
    assert joined == 'line\r\nbreak\u2028é😀"\\\x00data: x\n\n'


async def test_silence_is_filled_with_comments(make_app) -> None:
    app = make_app({"prefill_tokens_per_step": 1}, heartbeat=1.0)

    exchange = await ask(app, prompt="w " * 120, max_tokens=1, stream=True).run()

    assert exchange.data.count(b": \r\n\r\n") == 2
    assert exchange.events[-1].data == "[DONE]"


# -- stop strings ------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [" hard", ["no", "hard"], "low hard call", "w h"])
async def test_a_stop_string_ends_the_text_and_the_engine(make_app, get: Get, stop) -> None:
    app = make_app()
    texts = [stop] if isinstance(stop, str) else stop
    expected = SAID[: min(at for text in texts if (at := SAID.find(text)) >= 0)]

    whole = await answer(app, max_tokens=500, stop=stop)
    said = await events(app, max_tokens=500, stop=stop, headers=MINE)
    await app.runner.in_flight.wait_idle()

    [choice] = whole["choices"]
    assert (choice["text"], choice["finish_reason"]) == (expected, "stop")
    assert text_of(said) == expected
    assert said[-1]["choices"][0]["finish_reason"] == "stop"
    account = await get(app, "/v1/requests/r")
    assert (account["phase"], account["reason"], account["proof"]) == ("finished", None, "observed")
    assert account["told_after"] == 0
    assert account["saved"] == 500 - account["tokens"]
    assert (await get(app, "/v1/engine"))["running"] == 0


async def test_the_log_says_that_it_was_answered(make_app, caplog) -> None:
    app = make_app()
    with caplog.at_level("INFO", "streamkit.access"):
        await answer(app, max_tokens=500, stop=" hard")
        await app.runner.in_flight.wait_idle()

    [line] = [r.getMessage() for r in caplog.records if r.name == "streamkit.access"]
    assert "status=200 phase=finished" in line
    assert "proof=observed" in line


# -- what is refused ---------------------------------------------------------------------------

IMAGE = {"type": "image_url", "image_url": {"url": "data:"}}
BAD: list[tuple[str, dict[str, Any], str, str]] = [
    (CHAT, {"messages": []}, "messages", "tuple should have at least 1 item"),
    (CHAT, {"messages": [{"role": "cat", "content": "x"}]}, "messages.0.role", "should be"),
    (CHAT, {"messages": [{"role": "user"}]}, "messages.0.content", "field required"),
    (CHAT, {"messages": [{"role": "user", "content": [IMAGE]}]}, "messages.0.content", "no text"),
    (CHAT, {"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role", "should be"),
    (CHAT, {"top_logprobs": 2}, "top_logprobs", "only for a request with logprobs"),
    (CHAT, {"logprobs": True, "top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
    (CHAT, {"prompt": "x"}, "prompt", "there is no such field"),
    (CHAT, {"top_k": 5}, "top_k", "there is no such field"),
    (CHAT, {"max_completion_tokens": 0}, "max_completion_tokens", "greater than or equal to 1"),
    (CHAT, {"max_completion_tokens": 2_000_000}, "max_completion_tokens", "less than or equal"),
    (TEXT, {"prompt": ""}, "prompt", "none is empty"),
    (TEXT, {"prompt": []}, "prompt", "none is empty"),
    (TEXT, {"prompt": ["a", 1]}, "prompt", "must be a text"),
    (TEXT, {"prompt": [-1]}, "prompt", "must be a text"),
    (TEXT, {"prompt": [True]}, "prompt", "must be a text"),
    (TEXT, {"prompt": ["a"] * 65, "n": 2}, "prompt", "more than 128 choices"),
    (TEXT, {"max_tokens": 2_000_000}, "max_tokens", "less than or equal to 1000000"),
    (TEXT, {"n": 0}, "n", "greater than or equal to 1"),
    (TEXT, {"n": 129}, "n", "less than or equal to 128"),
    (TEXT, {"stop": ["a"] * 5}, "stop", "up to four"),
    (TEXT, {"stop": [""]}, "stop", "none of them empty"),
    (TEXT, {"stop": ["a", "b" * 257]}, "stop", "256 characters at most"),
    (TEXT, {"temperature": 2.1}, "temperature", "less than or equal to 2"),
    (TEXT, {"temperature": "1"}, "temperature", "valid number"),
    (TEXT, {"logprobs": 6}, "logprobs", "less than or equal to 5"),
    (TEXT, {"stream_options": {}}, "stream_options", "only for a request with stream"),
    (TEXT, {"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "no such field"),
]


@pytest.mark.parametrize(("path", "body", "param", "said"), BAD)
async def test_what_makes_no_sense_is_refused_by_the_name_of_its_field(
    make_app, path: str, body: dict, param: str, said: str
) -> None:
    app = make_app()

    error = await refused(app, path, **body)

    assert error["param"] == param
    assert said in error["message"]
    assert app.runner.statistics().refused == {"invalid": 1}


UNSUPPORTED: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {"tools": [{"type": "function"}]}),
    (CHAT, {"tool_choice": "required"}),
    (CHAT, {"response_format": {"type": "json_object"}}),
    (CHAT, {"modalities": ["audio"]}),
    (CHAT, {"logit_bias": {"5": 1}}),
    (CHAT, {"frequency_penalty": 0.5}),
    (TEXT, {"presence_penalty": -0.5}),
    (TEXT, {"echo": True}),
    (TEXT, {"suffix": "x"}),
    (TEXT, {"best_of": 2}),
]


@pytest.mark.parametrize(("path", "body"), UNSUPPORTED)
async def test_what_would_change_the_answer_is_refused_where_the_engine_has_it_not(
    make_app, path: str, body: dict
) -> None:
    error = await refused(make_app(), path, **body)

    assert error["code"] == "unsupported_parameter"
    assert error["param"] == next(iter(body))
    assert "not supported" in error["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"tools": [], "tool_choice": "none", "response_format": {"type": "text"}}),
        (CHAT, {"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}}),
        (TEXT, {"echo": False, "suffix": "", "best_of": 1, "user": "u"}),
    ],
)
async def test_what_changes_nothing_is_taken(make_app, path: str, body: dict) -> None:
    await answer(make_app(), path, max_tokens=1, **body)


async def test_what_the_engine_can_never_hold_is_refused(make_app) -> None:
    error = await refused(make_app({"kv_tokens": 10}), max_tokens=50)

    assert "the engine holds 10" in error["message"]


# -- the models --------------------------------------------------------------------------------


async def test_the_engine_is_the_one_model(make_app, get: Get) -> None:
    app = make_app()
    listed = await get(app, "/v1/models")

    [model] = listed["data"]
    assert listed["object"] == "list"
    assert (model["id"], model["object"], model["owned_by"]) == ("fake", "model", "streamkit")
    assert await get(app, "/v1/models/fake") == model
    error = (await get(app, "/v1/models/other/one", status=404))["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")


@pytest.mark.parametrize("model", ["gpt-4o", None])
async def test_any_name_will_do_for_there_is_one_model(make_app, model: str | None) -> None:
    assert (await answer(make_app(), max_tokens=1, model=model))["model"] == "fake"


# -- cut short ---------------------------------------------------------------------------------

FORMS = [(path, stream) for path in (CHAT, TEXT) for stream in (False, True)]


@pytest.mark.parametrize(("path", "stream"), FORMS)
@pytest.mark.parametrize("prompts", [1, 2])
@pytest.mark.parametrize(("steps", "phase"), [(0.5, "prefill"), (12.5, "decode")])
async def test_a_client_that_leaves_stops_the_engine(
    make_app, path: str, stream: bool, prompts: int, steps: float, phase: str
) -> None:
    app = make_app({"slots": 4})
    body: dict[str, Any] = {"n": 2, "max_tokens": 500, "stream": stream}
    if path == TEXT:
        body["prompt"] = ["a b c", "d"][:prompts]

    await ask(app, path, headers=MINE, leaves_after_seconds=steps * STEP, **body).run()
    await app.runner.in_flight.wait_idle()

    account = app.runner.find("r")
    assert (account.phase, account.reason) == ("cancelled", "client_disconnect")
    assert (account.cancelled_in, account.told_after) == (phase, 0)
    assert account.proof.word == "observed"
    assert account.proved_after <= STEP
    books = app.runner.engine.statistics()
    assert (books.running, books.queued, books.tokens) == (0, 0, account.produced)
    assert app.runner.statistics().violations == 0


@pytest.mark.parametrize(("path", "stream"), FORMS)
@pytest.mark.parametrize(
    ("how", "status", "code"), [("cancel", 499, "requested"), ("drain", 503, "drain")]
)
async def test_a_cancel_before_the_first_byte_has_its_status(
    make_app, path: str, stream: bool, how: str, status: int, code: str
) -> None:
    app = make_app({"prefill_tokens_per_step": 1})

    async with ask(app, path, headers=MINE, max_tokens=500, stream=stream) as exchange:
        await anyio.sleep(0.5 * STEP)
        await app.runner.drain(0) if how == "drain" else app.runner.cancel("r")

    assert exchange.status == status
    error = json.loads(exchange.data)["error"]
    assert (error["type"], error["code"]) == ("cancelled", code)


@pytest.mark.parametrize("path", [CHAT, TEXT])
async def test_a_deadline_before_the_first_byte_is_504(make_app, path: str) -> None:
    app = make_app({"prefill_tokens_per_step": 1}, request_timeout=STEP / 2)

    exchange = await ask(app, path, stream=True, max_tokens=500).run()

    assert (exchange.status, json.loads(exchange.data)["error"]["code"]) == (504, "deadline")


@pytest.mark.parametrize(("path", "first"), [(CHAT, 2), (TEXT, 1)])
async def test_a_cancel_of_a_stream_is_its_last_event(
    make_app, get: Get, path: str, first: int
) -> None:
    app = make_app()

    async with ask(app, path, headers=MINE, max_tokens=500, stream=True) as exchange:
        await exchange.wait_chunks(3)
        app.runner.cancel("r")

    assert exchange.completed
    assert "[DONE]" not in exchange.text
    assert len(exchange.events) == 3 - 1 + first + 1
    error = json.loads(exchange.events[-1].data)["error"]
    assert error == {
        "type": "cancelled",
        "message": "the request was cancelled",
        "reason": "requested",
        "param": None,
        "code": "requested",
    }
    await app.runner.in_flight.wait_idle()
    account = await get(app, "/v1/requests/r")
    assert (account["delivered"], account["proof"]) == (3, "observed")


async def test_an_engine_that_dies_ends_a_stream_with_an_error(make_app) -> None:
    app = make_app({"lie": "crash:3"})

    exchange = await ask(app, CHAT, max_tokens=500, stream=True).run()

    assert json.loads(exchange.events[-1].data)["error"]["type"] == "engine_failed"
    assert "[DONE]" not in exchange.text
    [ending] = app.runner.statistics().ended
    assert ending.outcome == "failed"


async def test_a_client_that_stops_reading_is_cut_off_after_a_while(make_app, get: Get) -> None:
    app = make_app(write_stall=5.0)

    await ask(
        app, CHAT, headers=MINE, max_tokens=5000, stream=True, stops_reading_after_chunks=3
    ).run()
    await app.runner.in_flight.wait_idle()

    account = await get(app, "/v1/requests/r")
    assert (account["reason"], account["delivered"]) == ("write_stalled", 3)


def test_chunks_are_framed_without_a_task_or_a_timer() -> None:
    """What is made once for a choice is not made again: a text costs one escape and one join."""
    from streamkit.server._openai._say import Chat, Head, Pieces  # noqa: PLC0415

    pieces = Pieces(Chat(), Head(id="r", created=1, model="m"), choices=1, wants_usage=False)
    first, second = pieces.encode(Chunk("a")), pieces.encode(Chunk("b"))

    assert first.endswith(second.replace(b'"b"', b'"a"'))
    assert re.fullmatch(rb"data: \{.*\}\n\n", second)
