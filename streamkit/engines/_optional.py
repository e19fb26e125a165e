"""Engines that are packages of their own: whether one is there, and what to say if it is not."""

from __future__ import annotations

import importlib.util

from streamkit.errors import MissingPackage


def is_installed(package: str) -> bool:
    """Whether the package can be imported; a dotted name is one that belongs to several owners."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # not even what is in front of its dot
        return False


def check_installed(package: str, *, engine: str, install: str) -> None:
    """Return if the package can be imported; it is not, for that can take seconds.

    Args:
        package: Its name in an ``import``.
        engine: The engine that needs it.
        install: The command that installs it.

    Raises:
        MissingPackage: It is not installed.
    """
    if not is_installed(package):
        raise MissingPackage(
            f"engine {engine} needs the package {package}, which is not installed: {install}"
        )
