"""An async generator over an engine: closed when its client leaves, and the engine proved idle."""

from starlette.requests import Request

from streamkit import cancellable
from streamkit.engines import FakeEngine

engine = FakeEngine(step_ms=20)


class Model:
    @cancellable(engine)
    async def predict(self, inputs: dict, request: Request):
        async for chunk in engine.generate(inputs["prompt"], max_tokens=inputs["max_tokens"]):
            yield chunk.text
