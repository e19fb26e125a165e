"""Where a model is deployed: a file that may change while the model runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from streamkit.errors import ModelLoadFailed

ENVIRONMENT_FILE: Final = Path("/etc/b10_dynamic_config/environment")  # where Truss's server looks


class Environment:
    """The content of that file, and what of it the model was told last.

    Args:
        file: The file; it need not be there.
    """

    def __init__(self, file: Path = ENVIRONMENT_FILE) -> None:
        self._file = file
        self._told: object = None

    def read(self) -> object:
        """Return the file's value, a dictionary by convention; None if it is missing or empty.

        Raises:
            ModelLoadFailed: It cannot be read, or is no JSON.
        """
        try:
            text = self._file.read_text(encoding="utf-8").strip()
            return json.loads(text) if text else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ModelLoadFailed(f"{self._file} cannot be read as JSON: {error}") from None

    def news(self) -> object:
        """Return the file's value if it is another one than last time, else None.

        Raises:
            ModelLoadFailed: As :meth:`read`.
        """
        value = self.read()
        if value is None or value == self._told:
            return None
        self._told = value
        return value
