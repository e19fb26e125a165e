"""`predict` returns an iterator as engines have them, which is no generator: it is closed, too."""

from streamkit.engines import FakeEngine


class Texts:
    def __init__(self, chunks):
        self._chunks = chunks

    def __aiter__(self):
        return self

    async def __anext__(self):
        return (await anext(self._chunks)).text

    async def aclose(self):
        await self._chunks.aclose()


class Model:
    def load(self):
        self.engine = FakeEngine(step_ms=20)

    async def predict(self, inputs: dict):
        return Texts(self.engine.generate(inputs["prompt"], max_tokens=inputs["max_tokens"]))
