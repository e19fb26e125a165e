"""A model class on a TensorRT-LLM that Triton serves; URL is its gRPC service."""

import os

from streamkit.engines import TritonEngine


class Model:
    async def load(self):
        self.engine = TritonEngine(os.environ["URL"], model="ensemble")
        await self.engine.load()

    async def predict(self, inputs: dict):
        async for chunk in self.engine.generate(inputs["prompt"], max_tokens=inputs["max_tokens"]):
            yield chunk.text
