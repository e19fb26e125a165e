"""llama-cpp-python's own server behind the adapter: closing stops it, and a canary proves it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from benchmarks.vllm_close_to_stopped import free_port, started, wait_ready
from streamkit._core import Cancellation, Reason, now
from streamkit.engines import GenerationRequest, Proof, UpstreamEngine
from tests.real.llama_cpp import tiny

LIMIT = 30.0  # seconds
ENDLESS = 15_000  # tokens, many seconds of the server's


@pytest.fixture(scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[UpstreamEngine]:
    folder: Path = tmp_path_factory.mktemp("server")
    model = tiny.build(folder / "slow.gguf", layers=6, width=256)
    port, log = free_port(), folder / "server.log"
    flags = ["--model", str(model), "--host", "127.0.0.1", "--port", str(port)]
    flags += ["--n_ctx", "16384", "--n_threads", "1", "--n_threads_batch", "1"]
    flags += ["--interrupt_requests", "false"]  # else whoever comes next cuts off who is served
    with started("llama_cpp.server", *flags, log=log) as process:
        await anyio.to_thread.run_sync(wait_ready, process, port, "/v1/models", log)
        engine = UpstreamEngine(f"http://127.0.0.1:{port}/v1", slots=1, proof="canary")
        await engine.load()
        yield engine
        await engine.aclose()


@pytest.mark.parametrize("tokens", [1, 40])
async def test_who_leaves_stops_it_and_a_canary_gets_through(
    engine: UpstreamEngine, tokens: int
) -> None:
    request = GenerationRequest(prompt="say it", max_tokens=ENDLESS)
    generation = engine.open(request, request_id=f"left-after-{tokens}")
    with anyio.fail_after(LIMIT):
        async for _ in generation:
            tokens -= 1
            if not tokens:
                break
        generation.cancel(Cancellation(reason=Reason.CLIENT_DISCONNECT, at=now()))
        report = await generation.wait_stopped(None)

    assert report.proof is Proof.FENCED, report
    assert report.misbehaviour is None
    print(f"proved after {report.stopped_after:.3f} s")


async def test_the_next_request_is_answered(engine: UpstreamEngine) -> None:
    with anyio.fail_after(LIMIT):
        text = [chunk.text async for chunk in engine.generate("say it", max_tokens=5)]

    assert len("".join(text)) == 5
