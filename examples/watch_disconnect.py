"""A plain function as Truss has it: `watch_disconnect()` gives it an event to look at."""

from starlette.requests import Request


class Model:
    def predict(self, inputs: dict, request: Request):
        with request.state.watch_disconnect() as disconnected:
            for _ in range(inputs["steps"]):
                # One step of 20 ms; the wait ends at once when the client leaves.
                if disconnected.wait(timeout=0.02):
                    return None
        return {"steps": inputs["steps"]}
