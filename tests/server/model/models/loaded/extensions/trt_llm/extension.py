"""An engine that is made before the model."""

from typing import Any


class Extension:
    def __init__(self, config: dict[str, Any], **kwargs: Any) -> None:
        self._name = config["model_name"]

    def load(self) -> None:
        self._name += " loaded"

    def model_args(self) -> dict[str, Any]:
        return {"engine": self._name}
