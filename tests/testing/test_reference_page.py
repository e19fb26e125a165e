"""The examples in the reference page of the test kit run."""

import asyncio
import inspect
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

from streamkit.testing import VirtualTimeLoop

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "testing.md"
BLOCKS = re.findall(r"(?ms)^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"))


def examples() -> dict[str, object]:
    """All functions of the page, each block seeing what the blocks before it defined."""
    namespace: dict[str, object] = {"__name__": "reference"}
    for block in BLOCKS:
        exec(compile(block, str(PAGE), "exec"), namespace)
    return {name: value for name, value in namespace.items() if name.startswith("test_")}


EXAMPLES = examples()


def marks(example: object) -> list[str]:
    return [mark.name for mark in getattr(example, "pytestmark", [])]


@asynccontextmanager
async def chat_server() -> AsyncIterator[str]:
    async def stream() -> AsyncIterator[str]:
        for number in range(100):
            yield f"data: {number}\n\n"
            await anyio.sleep(0.01)

    async def chat(_: object) -> StreamingResponse:
        return StreamingResponse(stream())

    app = Starlette(routes=[Route("/chat", chat, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listener])
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            server.should_exit = True


@pytest.mark.parametrize("name", [name for name in EXAMPLES if not marks(EXAMPLES[name])])
def test_an_example_on_virtual_time(name: str):
    example = EXAMPLES[name]
    assert inspect.iscoroutinefunction(example)
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(example())


@pytest.mark.realtime
@pytest.mark.parametrize("name", [name for name in EXAMPLES if marks(EXAMPLES[name])])
async def test_an_example_in_real_time(name: str):
    example = EXAMPLES[name]
    assert inspect.iscoroutinefunction(example)
    async with chat_server() as url:
        await example(url)
