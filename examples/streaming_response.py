"""`predict` answers with a response of its own, headers and all: it ends with its client."""

from starlette.responses import StreamingResponse

from streamkit.engines import FakeEngine


class Model:
    def load(self):
        self.engine = FakeEngine(step_ms=20)

    async def predict(self, inputs: dict):
        return StreamingResponse(self._texts(inputs), media_type="text/plain")

    async def _texts(self, inputs: dict):
        async for chunk in self.engine.generate(inputs["prompt"], max_tokens=inputs["max_tokens"]):
            yield chunk.text
