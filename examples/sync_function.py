"""A plain function on a thread, which nobody can stop: it asks `current_token()` as it computes."""

from streamkit import current_token


class Model:
    def predict(self, inputs: dict):
        token = current_token()
        total = 0
        for number in range(inputs["steps"]):
            token.raise_if_cancelled()
            total += _step(number)
        return {"total": total}


def _step(number: int) -> int:
    """Some milliseconds of computing."""
    return sum(range(number, number + 100_000))
