"""A coroutine that answers with one value: interrupted at its await when its client leaves."""

from streamkit.engines import FakeEngine


class Model:
    def load(self):
        self.engine = FakeEngine(step_ms=20)

    async def predict(self, inputs: dict):
        chunks = self.engine.generate(inputs["prompt"], max_tokens=inputs["max_tokens"])
        return {"text": "".join([chunk.text async for chunk in chunks])}
