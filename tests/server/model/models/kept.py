"""Says who was there before, as far as its context knows, and signs in."""

from contextvars import ContextVar

signed_in = ContextVar("signed_in", default="nobody")


class Model:
    async def predict(self, inputs):
        before = signed_in.get()
        signed_in.set(f"{len(inputs['prompt'])} characters")
        return before
