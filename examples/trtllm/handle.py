"""The same with TensorRT-LLM's own handle: what a polling task does once a second, done at once."""

import os

from tensorrt_llm import LLM, SamplingParams

from streamkit import cancellable


class Model:
    def load(self):
        self.llm = LLM(model=os.environ["MODEL"])

    async def predict(self, inputs: dict):
        params = SamplingParams(max_tokens=inputs["max_tokens"])
        handle = self.llm.generate_async(inputs["prompt"], params, streaming=True)
        told = 0
        # In the loop's thread, which is the one that submits; leaving the loop would abort nothing.
        async for output in cancellable(handle, on_cancel=lambda _: handle.abort()):
            text = output.outputs[0].text  # the same object each time, with everything in it
            yield text[told:]
            told = len(text)
