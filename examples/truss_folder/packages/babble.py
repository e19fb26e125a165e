"""What lies in `packages/` can be imported by the model."""

import random
from collections.abc import Iterator


class Babbler:
    def __init__(self, words: list[str], seed: str) -> None:
        self._words = words
        self._seed = seed

    def babble(self, count: int) -> Iterator[str]:
        dice = random.Random(self._seed)
        for _ in range(count):
            yield dice.choice(self._words)
