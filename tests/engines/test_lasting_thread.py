"""An engine that ends with the thread which started it: that one stays until the engine goes."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable

import anyio
import anyio.to_thread
import pytest

from streamkit.engines import SGLangEngine, TensorRTLLMEngine, VLLMEngine
from streamkit.engines._lasting_thread import make_in_lasting_thread
from streamkit.streams._workers import close_idle_threads

from . import sglang_stub, trtllm_stub, vllm_stub

LIMIT = 10  # seconds
DIES_WITH_ITS_PARENT = """
import ctypes, signal, time
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, as SGLang's schedulers have it
print("ready", flush=True)
time.sleep(60)
"""


def start_process() -> subprocess.Popen[str]:
    command = [sys.executable, "-S", "-c", DIES_WITH_ITS_PARENT]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.stdout.close()
    return process


@pytest.mark.realtime
@pytest.mark.skipif(sys.platform != "linux", reason="it takes PR_SET_PDEATHSIG")
def test_what_is_made_outlives_the_threads_of_the_pool() -> None:
    """They have ended with the loop whose pool they were, as they do when they are idle."""
    lasting, let_go = anyio.run(make_in_lasting_thread, start_process)
    pooled = anyio.run(anyio.to_thread.run_sync, start_process)

    assert pooled.wait(LIMIT) == -9
    assert lasting.poll() is None
    let_go()
    assert lasting.wait(LIMIT) == -9


@pytest.mark.realtime
async def test_a_thread_in_which_nothing_could_be_made_ends() -> None:
    made_in: list[threading.Thread] = []

    def fail() -> None:
        made_in.append(threading.current_thread())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await make_in_lasting_thread(fail)

    made_in[0].join(LIMIT)
    assert not made_in[0].is_alive()


@pytest.mark.realtime
@pytest.mark.asyncio_only
@pytest.mark.parametrize(
    ("stub", "make", "name"),
    [
        pytest.param(sglang_stub, lambda: SGLangEngine({"model_path": "m"}), "Engine", id="sglang"),
        pytest.param(trtllm_stub, lambda: TensorRTLLMEngine({"model": "m"}), "LLM", id="trtllm"),
        pytest.param(vllm_stub, lambda: VLLMEngine({"model": "m"}), "AsyncLLM", id="vllm"),
    ],
)
async def test_an_engine_is_made_in_a_thread_that_stays_until_it_is_closed(
    monkeypatch: pytest.MonkeyPatch, stub, make: Callable, name: str
) -> None:
    made_in: list[threading.Thread] = []

    class Made(getattr(stub, name)):
        def __init__(self, *args: object, **kwargs: object) -> None:
            made_in.append(threading.current_thread())
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(stub, name, Made)
    for module, content in stub.modules().items():
        monkeypatch.setitem(sys.modules, module, content)
    engine = make()

    await engine.load()
    close_idle_threads()  # streamkit's; anyio's would end in ten seconds
    assert made_in[0].is_alive()
    assert "AnyIO" not in made_in[0].name
    await engine.aclose()

    await anyio.to_thread.run_sync(made_in[0].join, LIMIT)
    assert not made_in[0].is_alive()
