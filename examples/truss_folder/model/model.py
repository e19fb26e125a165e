"""A whole Truss: config.yaml, data, packages and a secret, all found where Truss has them."""

import os

import anyio
from babble import Babbler


class Model:
    def __init__(self, config, data_dir, secrets):
        self._pause = config["model_metadata"]["pause"]
        self._data_dir = data_dir
        self._secrets = secrets

    def load(self):
        language = os.environ["BABBLE_LANGUAGE"]
        words = (self._data_dir / f"{language}.txt").read_text().split()
        self._babbler = Babbler(words, seed=self._secrets.get("babble_seed", "none"))

    async def predict(self, inputs):
        for word in self._babbler.babble(inputs["words"]):
            await anyio.sleep(self._pause)
            yield f"{word} "
