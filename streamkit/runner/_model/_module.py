"""Imports a model's module as Truss's server would find it, and as Python expects it to be."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Final

from streamkit.errors import TargetNotFound

from ._starting import notice_threads
from ._target import Form, Target

# A folder of one of these names cannot be a package: it would replace what everybody else imports.
_TAKEN: Final = sys.stdlib_module_names | {"streamkit"}


def enter(target: Target) -> None:
    """Make the process one in which the target's code runs; before it is loaded.

    For a folder the working directory becomes that folder, since a model of Truss opens
    ``data/weights`` and ``packages/...`` relative to ``/app``, and the environment gets the
    variables of its config.yaml (one that is set already stays, as ``docker run -e`` wins over an
    image). For each form the import path begins where its imports start from.
    """
    _import_from([target.root])
    notice_threads(target.root)
    if target.form is not Form.FOLDER:
        return
    os.chdir(target.root)
    for name, value in target.config.environment_variables.items():
        os.environ.setdefault(name, value)
    # Behind everything else, as on Truss: what is in packages/ hides nothing that is installed.
    for folder in target.config.package_dirs:
        path = str((target.root / folder).resolve())
        if path not in sys.path and Path(path).is_dir():
            sys.path.append(path)


def import_class(target: Target) -> object:
    """Import the target's module and return its class.

    Raises:
        TargetNotFound: The module has no such class.
        BaseException: Whatever the module raises while it is imported.
    """
    if target.module is not None:
        module = importlib.import_module(target.module)
    else:
        assert target.source is not None
        module = import_file(target.source, _package_of(target))
    try:
        found: object = getattr(module, target.class_name)
    except AttributeError:
        place = target.source or target.module
        raise TargetNotFound(f"there is no class {target.class_name} in {place}") from None
    return found


def import_file(source: Path, package: Sequence[str] = ()) -> ModuleType:
    """Import a file as a module of that package, whatever else is installed under that name.

    The module is in ``sys.modules`` while it runs and afterwards: dataclasses, pydantic and pickle
    look it up there. (Truss leaves it out, and all three fail.) The package's folders are the
    file's own; an ``__init__.py`` is run where there is one.
    """
    if not package:
        return _run(_free_name(source), source)
    _forget(package[0])
    for depth in range(1, len(package) + 1):
        _import_package(package[:depth], source.parents[len(package) - depth])
    name = ".".join((*package, source.stem))
    imported = sys.modules.get(name)  # the package's __init__.py may have done so
    if imported is not None and imported.__file__ == str(source):
        return imported
    module = _run(name, source)
    setattr(sys.modules[".".join(package)], source.stem, module)
    return module


def _package_of(target: Target) -> Sequence[str]:
    """The package that siblings are imported from: ``from model.helper import x``, on Truss."""
    if target.form is not Form.FOLDER:
        return ()
    parts = Path(target.config.model_module_dir).parts
    usable = all(part.isidentifier() for part in parts) and parts[:1] and parts[0] not in _TAKEN
    if usable:
        return parts
    assert target.source is not None
    _import_from([target.source.parent])
    return ()


def _import_package(package: Sequence[str], folder: Path) -> None:
    name = ".".join(package)
    init = folder / "__init__.py"
    if init.is_file():
        _run(name, init, folders=[str(folder)])
    else:
        # Made by hand: looked up on the import path, a folder without an __init__.py comes after
        # every installed package of that name.
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        sys.modules[name] = importlib.util.module_from_spec(spec)
    if len(package) > 1:
        setattr(sys.modules[".".join(package[:-1])], package[-1], sys.modules[name])


def _run(name: str, source: Path, folders: list[str] | None = None) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, source, submodule_search_locations=folders)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return sys.modules[name]  # a module may replace itself there


def _free_name(source: Path) -> str:
    """The file's stem, as for everybody who imports it; another name if that one is taken."""
    known = sys.modules.get(source.stem)
    theirs = known is not None and getattr(known, "__file__", None) != str(source)
    if theirs or source.stem in _TAKEN:
        return f"streamkit_model_{source.stem}"
    return source.stem


def _forget(package: str) -> None:
    """Drop what is imported under that name: another model's, or an installed package."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]


def _import_from(folders: Sequence[Path]) -> None:
    for folder in map(str, folders):
        if folder in sys.path:
            sys.path.remove(folder)
        sys.path.insert(0, folder)
