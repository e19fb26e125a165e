"""A model class on transformers, for ``streamkit serve``; the README says what MODEL is."""

import json
import os

from streamkit.engines import TransformersEngine


class Model:
    async def load(self):
        options = json.loads(os.environ.get("MODEL_ARGS", "{}"))
        self.engine = TransformersEngine({"model": os.environ["MODEL"], **options}, slots=2)
        await self.engine.load()

    async def predict(self, inputs: dict):
        async for chunk in self.engine.generate(inputs["prompt"], max_tokens=inputs["max_tokens"]):
            yield chunk.text
