"""A sync generator: it runs on a thread of its own, and asks whether to stop in its long step."""

from streamkit import current_token


class Model:
    def predict(self, inputs: dict):
        token = current_token()
        for number in range(inputs["max_tokens"]):
            # The long step: a block of pure computing would ask `token.cancelled` now and then.
            if token.wait_in_thread(timeout=0.02):
                return
            yield f"{number} "
