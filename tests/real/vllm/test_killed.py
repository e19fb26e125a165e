"""A server that is killed takes vLLM's engine core with it, which by itself would go on."""

from __future__ import annotations

from pathlib import Path

import psutil

from benchmarks.vllm_close_to_stopped import free_port, options, started, wait_ready
from examples.vllm import tiny

GONE = 10.0  # seconds


def test_no_process_of_vllms_outlives_a_server_that_is_killed(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "streamkit.log"
    command = ["streamkit.server.cli", "serve", "--engine", "vllm", "--port", str(port)]
    command += [f"--engine-option={k}={v}" for k, v in options(str(tiny.build(tmp_path))).items()]
    with started(*command, log=log) as server:
        wait_ready(server, port, "/health/ready", log)
        processes = psutil.Process(server.pid).children(recursive=True)
        assert any("EngineCore" in "".join([*p.cmdline(), p.name()]) for p in processes), processes

        server.kill()
        gone, left = psutil.wait_procs(processes, timeout=GONE)

    assert not left, (gone, left)
