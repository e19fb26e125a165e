"""Does what its inputs ask for: one process serves a kind of work of each sort."""

import time

import anyio
import fastapi
from starlette.responses import StreamingResponse

from streamkit import current_token


class Model:
    def __init__(self):
        self.closed = []

    def predict(self, inputs, request: fastapi.Request):
        return getattr(self, inputs["do"])(inputs, request)

    def value(self, inputs, request):
        return inputs

    async def coroutine(self, inputs, request):
        await anyio.sleep(inputs["seconds"])
        return "slept"

    def sync(self, inputs, request):
        return "told" if current_token().wait_in_thread(inputs["seconds"]) else "slept"

    def watches(self, inputs, request):
        with request.state.watch_disconnect() as disconnected:
            return "told" if disconnected.wait(inputs["seconds"]) else "waited"

    def polls(self, inputs, request):
        while not anyio.from_thread.run(request.is_disconnected):
            time.sleep(0.01)  # noqa: TID251 - as models do
        return "told"

    async def stream(self, inputs, request):
        try:
            for number in range(inputs["chunks"]):
                yield f"{number} "
                await anyio.sleep(inputs["seconds"])
        finally:
            self.closed.append(inputs["name"])

    def sync_stream(self, inputs, request):
        try:
            for number in range(inputs["chunks"]):
                yield f"{number} "
                time.sleep(inputs["seconds"])  # noqa: TID251 - a model computes
        finally:
            self.closed.append(inputs["name"])

    def answer(self, inputs, request):
        return StreamingResponse(self.sync_stream(inputs, request))

    async def breaks(self, inputs, request):
        for number in range(inputs["chunks"]):
            yield f"{number} "
        raise RuntimeError("secret")

    def refuses(self, inputs, request):
        raise fastapi.HTTPException(418, {"a": "teapot"}, {"x-kettle": "on"})

    def closings(self, inputs, request):
        return self.closed

    async def chat_completions(self, inputs):
        for number in range(3):
            yield {"n": number}
