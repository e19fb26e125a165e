"""Every public name is written down, so that changing one is a line in a diff.

``python tests/architecture/test_public_api.py`` writes the list anew.
"""

import importlib
import inspect
import pkgutil
from pathlib import Path

import streamkit

SNAPSHOT = Path(__file__).with_name("public_api.txt")
HOW_TO_CHANGE = f"if you meant it: python {Path(__file__).relative_to(Path(__file__).parents[2])}"


def public_modules() -> list[str]:
    """Every path without an underscore: that is what makes it a promise."""
    found = pkgutil.walk_packages(streamkit.__path__, "streamkit.")
    return ["streamkit", *(module.name for module in found if "._" not in module.name)]


def public_objects() -> dict[str, object]:
    """What each public module promises; of one without ``__all__``, that it can be imported."""
    objects: dict[str, object] = {}
    for name in public_modules():
        module = importlib.import_module(name)
        exported = getattr(module, "__all__", None)
        if exported is None:
            objects[name] = module
        else:
            objects |= {f"{name}: {each}": getattr(module, each) for each in exported}
    return objects


def test_public_names_are_those_in_the_snapshot() -> None:
    assert sorted(public_objects()) == SNAPSHOT.read_text().splitlines(), HOW_TO_CHANGE


def test_public_classes_and_functions_are_documented() -> None:
    undocumented = [
        name
        for name, value in public_objects().items()
        if (inspect.isclass(value) or inspect.isroutine(value)) and not value.__doc__
    ]

    assert not undocumented


if __name__ == "__main__":
    SNAPSHOT.write_text("".join(f"{line}\n" for line in sorted(public_objects())))
