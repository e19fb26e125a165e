"""A websocket: a client that leaves ends the answer, also where nothing is sent to it."""

from starlette.websockets import WebSocket

from streamkit.engines import FakeEngine


class Model:
    def load(self):
        self.engine = FakeEngine(step_ms=20)

    async def websocket(self, websocket: WebSocket):
        async for prompt in websocket.iter_text():
            async for chunk in self.engine.generate(prompt, max_tokens=100):
                await websocket.send_text(chunk.text)
