"""OpenAI's route alone, which Truss refuses: `chat_completions` answers whole or as a stream."""

from datetime import UTC, datetime
from uuid import uuid4

from streamkit.engines import FakeEngine


class Model:
    def load(self):
        self.engine = FakeEngine(step_ms=20)

    async def chat_completions(self, inputs: dict):
        stream = self._generate(inputs)
        if inputs.get("stream"):
            return _chunks(stream)
        text = "".join([chunk.text async for chunk in stream])
        message = {"role": "assistant", "content": text}
        return _completion("chat.completion", message=message, finish_reason="length")

    def _generate(self, inputs: dict):
        prompt = inputs["messages"][-1]["content"]
        return self.engine.generate(prompt, max_tokens=inputs.get("max_tokens", 100))


async def _chunks(stream):
    """Each dictionary becomes one event of the stream."""
    async for chunk in stream:
        delta = {"role": "assistant", "content": chunk.text}
        yield _completion("chat.completion.chunk", delta=delta, finish_reason=chunk.finish_reason)


def _completion(kind: str, **choice):
    return {
        "id": f"chatcmpl-{uuid4().hex}",
        "object": kind,
        "created": int(datetime.now(UTC).timestamp()),
        "model": "fake",
        "choices": [{"index": 0, **choice}],
    }
