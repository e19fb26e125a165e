"""Three stages: a client that leaves ends whichever runs, and those after it never begin."""

from streamkit.engines import FakeEngine


class Model:
    def load(self):
        self.engine = FakeEngine(step_ms=20)

    def preprocess(self, inputs: dict):
        return {"prompt": inputs["prompt"].strip(), "max_tokens": inputs["max_tokens"]}

    async def predict(self, inputs):
        return [chunk.text async for chunk in self.engine.generate(**inputs)]

    def postprocess(self, chunks):
        return {"text": "".join(chunks), "tokens": len(chunks)}
