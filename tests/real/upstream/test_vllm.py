"""vLLM's own API server behind the gateway: who leaves the gateway stops vLLM, streaming or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.vllm_close_to_stopped import (
    MODEL,
    Server,
    busy_vllm,
    flags_for_vllm,
    free_port,
    leave,
    proof_of,
    started,
    wait_ready,
)
from examples.vllm import tiny

STOPPED = 3.0  # seconds, on a machine that does other things as well


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Our server in front of theirs; busy is what theirs says."""
    folder: Path = tmp_path_factory.mktemp("servers")
    front, back = free_port(), free_port()
    theirs = ["vllm.entrypoints.openai.api_server", "--model", str(tiny.build(folder / "model"))]
    theirs += ["--port", str(back), "--host", "127.0.0.1", "--served-model-name", MODEL]
    ours = ["streamkit.server.cli", "serve", "--engine", "upstream", "--port", str(front)]
    ours += [f"--engine-option=base_url=http://127.0.0.1:{back}/v1"]
    with started(*theirs, *flags_for_vllm(), log=folder / "vllm.log") as vllm:
        wait_ready(vllm, back, "/health", folder / "vllm.log")
        with started(*ours, log=folder / "streamkit.log") as process:
            wait_ready(process, front, "/health/ready", folder / "streamkit.log")
            yield Server("gateway", front, process.pid, lambda _: busy_vllm(back), MODEL)


@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_the_gateway_stops_vllm(gateway: Server, stream: bool) -> None:
    seconds = [leave(gateway, stream=stream, request_id=f"{stream}-{n}") for n in range(4)]

    assert sorted(seconds)[1] < STOPPED
    assert proof_of(gateway, f"{stream}-3")[0] == "closed"
    print(f"stream={stream}: ", *(f"{1000 * each:.1f}" for each in seconds), "ms")
