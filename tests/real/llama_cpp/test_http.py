"""``streamkit serve --engine llama_cpp``: OpenAI's client gets the same texts, and may leave."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.server.serving import Served, run, serving

from .conftest import ARGS

LIMIT = 20.0  # seconds, on a machine that does other things as well
HELLO = [{"role": "user", "content": "hi"}]
ENDLESS = 12_000  # tokens: seconds at least


@pytest.fixture(scope="module")
def served(model: Path) -> Iterator[Served]:
    options = {"model": model, **ARGS}
    with serving("--engine", "llama_cpp", **options) as served:
        wait_until(served, lambda: ready(served), "ready")
        yield served


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ready(served: Served) -> bool:
    return served.get("/v1/engine")["slots"] == 1


def wait_until(served: Served, holds: Any, what: str) -> None:
    limit = time.perf_counter() + LIMIT
    while not holds():  # each question takes a turn of its loop
        assert time.perf_counter() < limit, (what, served.get("/v1/engine"))


def idle(served: Served) -> bool:
    books = served.get("/v1/engine")
    return books["running"] + books["queued"] == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_is_what_the_package_itself_says(
    client: openai.OpenAI, llm: Any, stream: bool
) -> None:
    asked: dict[str, Any] = {"max_tokens": 30, "temperature": 0.8, "seed": 4, "stop": ["zz"]}
    theirs = llm.create_chat_completion(HELLO, **asked)["choices"][0]

    if stream:
        with client.chat.completions.create(
            model="llama_cpp", messages=HELLO, stream=True, **asked
        ) as chunks:
            choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
        text = "".join(choice.delta.content or "" for choice in choices)
        reason = choices[-1].finish_reason
    else:
        answer = client.chat.completions.create(model="llama_cpp", messages=HELLO, **asked)
        text, reason = answer.choices[0].message.content, answer.choices[0].finish_reason

    assert (text, reason) == (theirs["message"]["content"], theirs["finish_reason"])


def test_a_completion_is_what_the_package_itself_says(client: openai.OpenAI, llm: Any) -> None:
    asked: dict[str, Any] = {"max_tokens": 10, "temperature": 0, "logprobs": 2}
    theirs = llm.create_completion("say it", **asked)

    answer = client.completions.create(model="llama_cpp", prompt="say it", **asked)

    assert answer.choices[0].text == theirs["choices"][0]["text"]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == theirs["usage"]["prompt_tokens"]
    assert answer.usage.completion_tokens == theirs["usage"]["completion_tokens"]
    said = answer.choices[0].logprobs
    assert said is not None
    assert said.tokens == theirs["choices"][0]["logprobs"]["tokens"]


def test_leaving_a_stream_early_stops_the_engine(served: Served, client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model="llama_cpp",
        messages=HELLO,
        stream=True,
        max_tokens=ENDLESS,
        extra_headers={"x-request-id": "left-early"},
    ) as chunks:
        for number, _ in enumerate(chunks):
            if number == 3:
                break
    check_stopped(served, "left-early", "client_disconnect")


def test_a_client_that_does_not_wait_for_its_answer_stops_the_engine(
    served: Served, client: openai.OpenAI
) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.3).chat.completions.create(
            model="llama_cpp",
            messages=HELLO,
            max_tokens=ENDLESS,
            extra_headers={"x-request-id": "timed-out"},
        )
    check_stopped(served, "timed-out", "client_disconnect")


def check_stopped(served: Served, request_id: str, reason: str) -> None:
    wait_until(served, lambda: idle(served), "idle")
    wait_until(
        served, lambda: served.get(f"/v1/requests/{request_id}").get("proof") is not None, "proof"
    )
    record = served.get(f"/v1/requests/{request_id}")
    assert (record["reason"], record["proof"]) == (reason, "joined")
    tokens = served.get("/v1/engine")["tokens"]
    assert tokens < ENDLESS
    assert served.generate(max_tokens=1).status_code == 200
    assert served.get("/v1/engine")["tokens"] == tokens + 1


def test_who_leaves_the_queue_never_runs(served: Served, client: openai.OpenAI) -> None:
    with client.completions.create(
        model="llama_cpp", prompt="w", stream=True, max_tokens=ENDLESS
    ) as chunks:
        next(iter(chunks))
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=0.3).completions.create(
                model="llama_cpp",
                prompt="never",
                max_tokens=5,
                extra_headers={"x-request-id": "never-ran"},
            )
        wait_until(served, lambda: served.get("/v1/engine")["queued"] == 0, "an empty queue")
        assert served.get("/v1/engine")["running"] == 1
    wait_until(served, lambda: idle(served), "idle")
    assert served.get("/v1/requests/never-ran")["proof"] == "joined"


def test_a_prompt_that_is_too_long_is_400(served: Served) -> None:
    answer = served.generate(prompt="w" * 17_000)

    assert answer.status_code == 400
    assert "17001 tokens" in answer.text


def test_a_model_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    served = run("serve", "--engine=llama_cpp", f"--engine-option=model={tmp_path}/no.gguf")

    assert served.returncode == 2
    assert served.stderr == (
        f"streamkit: engine llama_cpp: there is no file '{tmp_path}/no.gguf'\n"
    )


def test_a_file_that_is_no_model_ends_the_server(tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_text("no model")

    served = run(
        "serve", "--port=0", "--engine=llama_cpp", f"--engine-option=model={tmp_path}/no.gguf"
    )

    assert served.returncode == 1
    assert "Failed to load model from file" in served.stderr
