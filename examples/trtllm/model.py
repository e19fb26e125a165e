"""A model class on TensorRT-LLM, for ``streamkit serve``; the README says what MODEL is."""

import json
import os

from streamkit.engines import TensorRTLLMEngine


class Model:
    async def load(self):
        options = json.loads(os.environ.get("LLM_ARGS", "{}"))
        self.engine = TensorRTLLMEngine({"model": os.environ["MODEL"], **options})
        await self.engine.load()

    async def predict(self, inputs: dict):
        async for chunk in self.engine.generate(inputs["prompt"], max_tokens=inputs["max_tokens"]):
            yield chunk.text
