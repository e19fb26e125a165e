"""A model's secrets: looked up when asked for, never shown."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

SECRETS_DIR: Final = Path("/secrets")  # where Kubernetes mounts them, a file for each
VARIABLE_PREFIX: Final = "TRUSS_SECRET_"


class SecretNotFound(KeyError):
    """A model asked for a secret that there is not, or that is empty.

    A ``KeyError``, so that ``secrets.get(name, default)`` is what it is for every mapping. (That of
    Truss is none: there ``get`` raises as well.)
    """

    def __str__(self) -> str:
        return str(self.args[0])  # a KeyError shows its argument's repr, line breaks and all


class Secrets(Mapping[str, str]):
    """Names and values: of the file ``/secrets/<name>``, else ``TRUSS_SECRET_<name>``, else given.

    Args:
        declared: Names, and the values that a config.yaml gives them (None, most often).
        open: Whether a name that is not declared may be looked up as well: where there is no
            config.yaml that could declare one. On Truss it may not.
        folder: Where the files are.
    """

    def __init__(
        self,
        declared: Mapping[str, str | None],
        *,
        open: bool = False,  # noqa: A002 - names what it is
        folder: Path = SECRETS_DIR,
    ) -> None:
        self._base_secrets = dict(declared)  # under this name, since published models read it
        self._open = open
        self._folder = folder

    def __getitem__(self, name: str) -> str:
        """Look it up, now.

        Raises:
            SecretNotFound: There is none of that name, or it is empty.
        """
        declared = self._open or name in self._base_secrets
        value = self._look_up(name) if declared else None
        if not value:
            raise SecretNotFound(self._way_out(name, declared=declared))
        return value

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._names() if self._look_up(name))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<Secrets {', '.join(self._names()) or 'none'}>"

    def _names(self) -> list[str]:
        names = dict.fromkeys(self._base_secrets)
        if self._open:
            names |= dict.fromkeys(self._mounted())
            names |= dict.fromkeys(
                variable.removeprefix(VARIABLE_PREFIX)
                for variable in os.environ
                if variable.startswith(VARIABLE_PREFIX)
            )
        return list(names)

    def _mounted(self) -> list[str]:
        if not self._folder.is_dir():
            return []
        # What begins with a dot is Kubernetes' own: the links by which it replaces all at once.
        return sorted(file.name for file in self._folder.iterdir() if file.name[0] != ".")

    def _look_up(self, name: str) -> str | None:
        file = self._folder / name
        # A name is no path: "../etc/passwd" must not leave the folder.
        if file.parent == self._folder and file.is_file():
            return file.read_text(encoding="utf-8")
        return os.environ.get(VARIABLE_PREFIX + name, self._base_secrets.get(name))

    def _way_out(self, name: str, *, declared: bool) -> str:
        if not declared:
            return f"Secret '{name}' not found. Add it to the 'secrets' section of config.yaml"
        return (
            f"Secret '{name}' not found. Put its value into the file {self._folder / name}, "
            f"or into the environment variable {VARIABLE_PREFIX}{name}"
        )
