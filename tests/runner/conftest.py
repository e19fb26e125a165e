"""What the runner's tests share: one request, served the way a server would."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio
import pytest

from streamkit._core import CancelSource, now
from streamkit.engines import GenerationRequest
from streamkit.runner import Call, EngineRunner


@dataclass
class Served:
    """What a client of one request saw."""

    id: str = ""
    texts: list[str] = field(default_factory=list)
    error: Exception | None = None
    ended_at: float = 0.0


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture
def serve() -> Serve:
    """Serve one request as a stream whose reader takes ``sending`` seconds for each chunk."""

    async def serve(
        runner: EngineRunner,
        source: CancelSource | None = None,
        *,
        request_id: str | None = None,
        sending: float = 0.0,
        **request: object,
    ) -> Served:
        served = Served()
        token = None if source is None else source.token
        try:
            with runner.accept(request_id=request_id, token=token) as call:
                served.id = call.id
                call.admit(GenerationRequest(**{"prompt": "one two three", **request}))
                await read(call, served.texts, sending)
                await call.complete()
        except Exception as error:  # noqa: BLE001 - the test decides what to make of it
            served.error = error
        served.ended_at = now()
        return served

    return serve


async def read(call: Call, texts: list[str], sending: float) -> None:
    async for text in call.stream():
        if sending:
            await anyio.sleep(sending)
        texts.append(text)
