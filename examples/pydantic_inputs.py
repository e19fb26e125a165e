"""Inputs with a type: what does not fit it is answered 400, and which field it was."""

from pydantic import BaseModel, Field

from streamkit.engines import FakeEngine


class Inputs(BaseModel):
    prompt: str
    max_tokens: int = Field(default=100, ge=1, le=10_000)


class Model:
    def load(self):
        self.engine = FakeEngine(step_ms=20)

    async def predict(self, inputs: Inputs):
        async for chunk in self.engine.generate(inputs.prompt, max_tokens=inputs.max_tokens):
            yield chunk.text
