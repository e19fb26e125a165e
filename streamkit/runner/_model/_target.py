"""What TARGET names: where the model class is, found without importing anything of the user's."""

from __future__ import annotations

import ast
import difflib
import importlib.machinery
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from streamkit.errors import TargetNotFound

from ._config import CONFIG_FILE, ModelConfig, default_config, read_config

DEFAULT_CLASS: Final = "Model"
FORMS: Final = (
    f"TARGET is package.module:Class, a .py file (with a class {DEFAULT_CLASS}, or file.py:Class), "
    f"or a folder in Truss's layout ({CONFIG_FILE}, model/model.py)"
)
EXTENSIONS: Final = "extensions"  # a folder of folders with an extension.py
EXTENSION_MODEL: Final = "trt_llm"  # the extension that may make the model itself
_MODEL_FILE: Final = ("model", "model.py")
_APPS: Final = frozenset({"FastAPI", "Starlette"})
# Where one of these stands, a module may have names that its text does not bind.
_MAGIC: Final = frozenset({"*", "__getattr__", "exec", "globals", "setattr", "vars"})


class Form(StrEnum):
    """How TARGET was given."""

    MODULE = "module"
    FILE = "file"
    FOLDER = "folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a model class is.

    Attributes:
        spec: TARGET as it was given.
        form: Which of its three forms that is.
        name: What to call the model: the configured name, else the folder's, file's or class's.
        class_name: The class.
        root: The folder that its imports start from: Truss's folder, the file's folder, or the
            working directory.
        source: The file that is (or holds) the class's module; None if an extension makes the model
            or the module has no Python source.
        module: The module's full name; None if that follows from ``source``.
        config: What its config.yaml says; the defaults for the forms that have none.
        config_file: That file, of a folder.
        more_extensions: A folder of extensions beside the target's own.
    """

    spec: str
    form: Form
    name: str
    class_name: str
    root: Path
    source: Path | None = None
    module: str | None = None
    config: ModelConfig = field(default_factory=default_config, repr=False)
    config_file: Path | None = None
    more_extensions: Path | None = None

    @property
    def extensions(self) -> dict[str, Path]:
        """The file of each extension by its name, the folder's own before others."""
        own = self.root / EXTENSIONS if self.form is Form.FOLDER else None
        return {
            source.parent.name: source
            for folder in (self.more_extensions, own)
            if folder is not None
            for source in sorted(folder.glob("*/extension.py"))
        }

    @property
    def passed_over(self) -> Path | None:
        """The folder in Truss's layout that a file was taken out of: nothing else of it counts."""
        source = self.source
        if self.form is not Form.FILE or source is None or source.parts[-2:] != _MODEL_FILE:
            return None
        folder = source.parents[1]
        return folder if (folder / CONFIG_FILE).is_file() else None

    def __str__(self) -> str:
        return f"{self.class_name} of {self.source or self.module or self.root}"


def find_target(spec: str, extensions: Path | None = None) -> Target:
    """Return what ``spec`` names; imports nothing, takes milliseconds.

    ``extensions`` is a folder of more of them: ``NAME/extension.py``.

    Relative paths, and modules, start from the working directory, as uvicorn's do.

    Raises:
        TargetNotFound: There is no such file, folder, module or class.
        ModelLoadFailed: The folder's config.yaml cannot be used.
    """
    if extensions is not None:
        extensions = extensions.resolve()
        if not extensions.is_dir():
            raise TargetNotFound(f"--extensions: there is no folder {extensions}")
    path = Path(spec)
    if spec and path.is_dir():
        return _folder(spec, path, extensions)
    return replace(_no_folder(spec, path), more_extensions=extensions)


def _no_folder(spec: str, path: Path) -> Target:
    place, colon, class_name = spec.partition(":")
    if colon and not class_name.isidentifier():
        raise TargetNotFound(f"{spec!r}: {class_name!r} is no name of a class; {FORMS}")
    if place.endswith(".py"):
        return _file(spec, Path(place), class_name or DEFAULT_CLASS)
    if colon and all(part.isidentifier() for part in place.split(".")):
        return _module(spec, place, class_name)
    raise TargetNotFound(_not_there(spec, path))


def _folder(spec: str, path: Path, extensions: Path | None) -> Target:
    root = path.resolve()
    config_file = root / CONFIG_FILE
    if not config_file.is_file():
        near = [name for name in ("config.yml", "Config.yaml") if (root / name).is_file()]
        hint = f"rename {near[0]}" if near else f"an empty one will do; {FORMS}"
        raise TargetNotFound(f"{spec!r}: there is no {CONFIG_FILE} in {root}; {hint}")
    config = read_config(config_file)
    source = root / config.model_module_dir / config.model_class_filename
    target = Target(
        spec=spec,
        form=Form.FOLDER,
        name=config.model_name or root.name,
        class_name=config.model_class_name,
        root=root,
        source=source if source.is_file() else None,
        config=config,
        config_file=config_file,
        more_extensions=extensions,
    )
    if target.source is not None:
        _require_class(target, target.source)
    elif EXTENSION_MODEL not in target.extensions:
        raise TargetNotFound(_no_model_file(target, source))
    return target


def _no_model_file(target: Target, source: Path) -> str:
    near = _did_you_mean(source.name, _python_files(source.parent))
    text = f"{target.spec!r}: there is no file {source}{near}"
    if target.config.raw[EXTENSION_MODEL] and not near:
        return (
            f"{text}; {EXTENSION_MODEL} of {target.config_file} has Truss build a model, which "
            f"needs {EXTENSIONS}/{EXTENSION_MODEL}/extension.py; write a class, or add that file, "
            f"there or below --extensions"
        )
    where = f"model_module_dir and model_class_filename in {target.config_file} say where it is"
    return f"{text}; {where}"


def _file(spec: str, path: Path, class_name: str) -> Target:
    source = path.resolve()
    if not source.is_file():
        hint = _did_you_mean(source.name, _python_files(source.parent))
        raise TargetNotFound(f"{spec!r}: there is no file {source}{hint}")
    target = Target(
        spec=spec,
        form=Form.FILE,
        name=source.stem,
        class_name=class_name,
        root=source.parent,
        source=source,
    )
    _require_class(target, source)
    return target


def _module(spec: str, module: str, class_name: str) -> Target:
    root = Path.cwd()
    source = _module_source(spec, module, root)
    target = Target(
        spec=spec,
        form=Form.MODULE,
        name=class_name,
        class_name=class_name,
        root=root,
        source=source,
        module=module,
    )
    if source is not None:
        _require_class(target, source)
    return target


def _module_source(spec: str, module: str, root: Path) -> Path | None:
    """The module's file. ``importlib.util.find_spec`` would import the packages it is in."""
    folders: Sequence[str] | None = None
    found: importlib.machinery.ModuleSpec | None = None
    where = "on the import path"
    for part in module.split("."):
        found = _find(part, root, folders)
        if found is None:
            near = _did_you_mean(part, _importable([str(root)] if folders is None else folders))
            raise TargetNotFound(
                f"{spec!r}: there is no module {part} {where}, working directory {root}{near}"
            )
        folders = list(found.submodule_search_locations or ())
        where = f"in {part}"
    assert found is not None
    if found.loader is None or found.origin is None:
        raise TargetNotFound(f"{spec!r}: {module} is a folder; name a module in it")
    return Path(found.origin) if found.origin.endswith(".py") else None


def _find(
    name: str, root: Path, folders: Sequence[str] | None
) -> importlib.machinery.ModuleSpec | None:
    """One part of a dotted name: in its package's folders, or at the top."""
    if folders is not None:
        return importlib.machinery.PathFinder.find_spec(name, folders)
    here = importlib.machinery.PathFinder.find_spec(name, [str(root)])
    if here is not None and here.loader is not None:
        return here
    for finder in sys.meta_path:  # an editable install has a finder of its own
        elsewhere = finder.find_spec(name, None)
        if elsewhere is not None:
            return elsewhere
    return here


def _require_class(target: Target, source: Path) -> None:
    """Raise if the text of the module says that it has no such class; else importing will tell."""
    try:
        tree = ast.parse(source.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return  # the import says it better, with its own traceback
    names = set(_names(tree))
    if target.class_name in names or names & _MAGIC:
        return
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    hint = _did_you_mean(target.class_name, classes, otherwise=classes)
    if names & _APPS:
        hint = f"; it makes an ASGI app: run that as it is, as in `uvicorn {source.stem}:app`"
    raise TargetNotFound(
        f"{target.spec!r}: there is no class {target.class_name} in {source}{hint}"
    )


def _names(tree: ast.AST) -> Iterable[str]:
    """Every name that occurs: bound in whatever way, or merely used."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name
            case ast.alias(name=name, asname=None):
                yield name
            case ast.alias(asname=str(name)):
                yield name
            case ast.Name(id=name):
                yield name
            case _:
                pass


def _not_there(spec: str, path: Path) -> str:
    if not spec:
        return f"TARGET is empty; {FORMS}"
    text = f"{spec!r}: there is no file or folder {path.absolute()}"
    if path.is_file():
        text = f"{spec!r} is neither a .py file nor a folder"
        if path.name == CONFIG_FILE:
            return f"{text}; name its folder, {str(path.parent)!r}"
        return f"{text}; {FORMS}"
    if Path(f"{spec}.py").is_file():
        return f"{text}; did you mean {spec}.py?"
    if all(part.isidentifier() for part in spec.split(".")) and "." in spec:
        return f"{text}; a module needs its class, {spec}:{DEFAULT_CLASS}"
    near = _did_you_mean(path.name, [each.name for each in _entries(path.parent)])
    return f"{text}{near}; {FORMS}"


def _did_you_mean(name: str, known: Sequence[str], otherwise: Sequence[str] = ()) -> str:
    near = difflib.get_close_matches(name, known, 1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; there is {', '.join(otherwise)}" if otherwise else ""


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _python_files(folder: Path) -> list[str]:
    return [path.name for path in _entries(folder) if path.suffix == ".py"]


def _importable(folders: Iterable[str]) -> list[str]:
    paths = [path for folder in folders for path in _entries(Path(folder))]
    return [path.stem for path in paths if path.suffix == ".py" or path.is_dir()]
