"""Loading a model class: real folders and files, imported, made and loaded as a server does it."""

import dataclasses
import json
import logging
import os
import pickle
import sys
import threading
import tomllib
import typing
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from textwrap import dedent
from typing import Any

import anyio
import pytest
from packaging.requirements import Requirement

from streamkit._core import now, wait_held
from streamkit.errors import ModelDefinitionError, ModelLoadFailed, TargetNotFound
from streamkit.runner._model._failure import IN_TRUSSS_IMAGE, describe_failure
from streamkit.runner._model._loading import LoadedModel, ModelLoader
from streamkit.runner._model._module import enter
from streamkit.runner._model._target import find_target
from streamkit.testing import ThreadGate

pytestmark = [pytest.mark.asyncio_only, pytest.mark.blocks_the_loop]  # entering a folder reads it

Load = Callable[..., Awaitable[Any]]
ROOT = Path(__file__).parents[3]
ANYIO = tuple(map(int, version("anyio").split(".")[:2]))


@pytest.fixture(autouse=True)
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Entering a target changes the process; here it is changed back."""
    modules, variables = dict(sys.modules), dict(os.environ)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # files change within one second
    monkeypatch.chdir(tmp_path)
    yield
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]
    sys.modules.update(modules)
    os.environ.clear()
    os.environ.update(variables)


@pytest.fixture
def loader(tmp_path: Path) -> Iterator[Callable[[str], ModelLoader]]:
    with ExitStack() as loaders:

        def make(spec: str, extensions: Path | None = None) -> ModelLoader:
            target = find_target(spec, extensions)
            enter(target)
            loader = ModelLoader(
                target,
                secrets_dir=tmp_path / "secrets",
                environment_file=tmp_path / "environment",
            )
            loaders.callback(loader.close)
            return loader

        yield make


@pytest.fixture
def load(loader: Callable[[str], ModelLoader], tmp_path: Path) -> Load:
    """Write a folder in Truss's layout with this ``model/model.py`` and load it."""

    async def load(source: str, config: str = "") -> Any:
        os.chdir(tmp_path)  # out of the folder that was entered before
        write("truss/config.yaml", config)
        write("truss/model/model.py", source)
        return (await loader("truss").load()).model

    return load


def write(path: str, text: str) -> None:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(dedent(text))


def is_there(path: str) -> bool:
    return Path(path).exists()


async def failure(load: Load, source: str, config: str = "") -> ModelLoadFailed:
    with pytest.raises(ModelLoadFailed) as caught:
        await load(source, config)
    return caught.value


# -- what a constructor gets -----------------------------------------------------------------------

KEEPS = """
class Model:
    def __init__(self, {parameters}):
        self.got = {got}
    def predict(self): ...
"""


async def test_a_constructor_gets_each_keyword_that_it_names(load: Load) -> None:
    write("environment", '{"name": "production"}')

    model = await load(
        KEEPS.format(
            parameters="config, data_dir, secrets, lazy_data_resolver, environment, other=1",
            got="config, data_dir, secrets, lazy_data_resolver, environment",
        ),
        "{secrets: {token: abc}, model_metadata: {a: 1}}",
    )

    config, data_dir, secrets, resolver, environment = model.got
    assert config["model_metadata"] == {"a": 1}
    assert config["runtime"]["predict_concurrency"] == 1
    assert data_dir == Path("data")
    assert data_dir.is_dir(), "Truss makes it if it is not there"
    assert secrets["token"] == "abc"
    assert resolver.block_until_download_complete(log_stats=False) == ""
    assert environment == {"name": "production"}


async def test_a_folder_where_no_data_can_be_made_is_loaded(load: Load) -> None:
    model = await load(
        KEEPS.format(parameters="data_dir", got="data_dir"), "{data_dir: config.yaml/data}"
    )

    assert model.got == Path("config.yaml/data")


async def test_a_constructor_that_takes_any_keyword_gets_all(load: Load) -> None:
    model = await load(KEEPS.format(parameters="**kwargs", got="kwargs"))

    expected = {"config", "data_dir", "secrets", "lazy_data_resolver", "environment"}
    assert set(model.got) == expected
    assert model.got["environment"] is None


async def test_a_constructor_that_takes_nothing_gets_nothing(load: Load) -> None:
    model = await load("class Model:\n    def predict(self): ...")

    assert type(model).__name__ == "Model"
    assert not is_there("data"), "it did not ask for it"


async def test_a_parameter_that_nobody_gives_is_told(load: Load) -> None:
    error = await failure(load, KEEPS.format(parameters="config, engine", got="config"))

    assert isinstance(error.__cause__, ModelDefinitionError)
    assert str(error) == (
        "Model: nobody gives its constructor the parameter 'engine'; give it a default, take one "
        "of config, data_dir, secrets, lazy_data_resolver, environment, "
        "or (in a folder) add extensions/engine/extension.py"
    )
    assert describe_failure(error) == str(error), "no traceback for a mistake that is understood"


async def test_a_positional_parameter_is_told(load: Load) -> None:
    error = await failure(load, KEEPS.format(parameters="config, /", got="config"))

    assert str(error) == (
        "Model: the parameter 'config' of its constructor cannot be given by keyword; drop the `/`"
    )


async def test_a_model_that_changes_its_config_changes_its_own_copy(
    loader: Callable[[str], ModelLoader],
) -> None:
    write("truss/config.yaml", "model_metadata: {a: 1}")
    write("truss/model/model.py", KEEPS.format(parameters="config", got="config.clear()"))

    loaded = await loader("truss").load()

    assert loaded.config.raw["model_metadata"] == {"a": 1}


async def test_extensions_are_loaded_first_and_given_by_name(load: Load) -> None:
    write(
        "truss/extensions/trt_llm/extension.py",
        """
        class Extension:
            def __init__(self, config, secrets):
                self.engine = None
            def load(self):
                self.engine = "an engine"
            def model_args(self):
                return {"engine": self.engine}
        """,
    )
    write("truss/extensions/README.md", "no extension")

    model = await load(KEEPS.format(parameters="trt_llm", got="trt_llm"))

    assert model.got == {"engine": "an engine"}


@pytest.mark.parametrize("spec", ["truss", "truss/model/model.py"])
async def test_an_extension_may_stand_beside_what_is_served(
    loader: Callable[..., ModelLoader], spec: str
) -> None:
    write("truss/config.yaml", "trt_llm: {build: {}}")
    write("truss/model/model.py", KEEPS.format(parameters="trt_llm", got="trt_llm"))
    write(
        "mine/trt_llm/extension.py",
        """
        from .engine import make
        class Extension:
            def load(self): ...
            def model_args(self): return {"engine": make()}
        """,
    )
    write("mine/trt_llm/engine.py", "def make(): return 'an engine'")

    loaded: Any = await loader(spec, Path("mine")).load()

    assert loaded.model.got == {"engine": "an engine"}


async def test_without_a_model_file_the_extension_makes_the_model(
    loader: Callable[[str], ModelLoader],
) -> None:
    write("truss/config.yaml", "")
    write(
        "truss/extensions/trt_llm/extension.py",
        """
        class Override:
            def predict(self): return "overridden"
        class Extension:
            def load(self): ...
            def model_override(self): return Override()
        """,
    )

    loaded = await loader("truss").load()

    assert loaded.model.predict() == "overridden"


# -- the process around it -------------------------------------------------------------------------


async def test_a_folder_is_the_working_directory_and_its_variables_are_set_before_the_import(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINE", "of the shell")
    write("truss/data/weights.txt", "weights")

    model = await load(
        """
        import os, pathlib
        LEVEL, MINE = os.environ["LEVEL"], os.environ["MINE"]
        WEIGHTS = pathlib.Path("data/weights.txt").read_text()
        class Model:
            got = LEVEL, MINE, WEIGHTS
            def predict(self): ...
        """,
        "environment_variables: {LEVEL: 3, MINE: of the file}",
    )

    assert model.got == ("3", "of the shell", "weights")


async def test_packages_can_be_imported_and_hide_nothing_that_is_installed(load: Load) -> None:
    write("truss/packages/helpers_of_mine.py", "NAME = 'mine'")
    write("truss/packages/json.py", "raise RuntimeError('hides the real one')")
    write("shared/shared_helpers.py", "NAME = 'shared'")
    sys.modules.pop("json")

    model = await load(
        """
        import json, helpers_of_mine, shared_helpers
        class Model:
            got = helpers_of_mine.NAME, shared_helpers.NAME, json.dumps(1)
            def predict(self): ...
        """,
        "external_package_dirs: [../shared]",
    )

    assert model.got == ("mine", "shared", "1")


# -- the module ------------------------------------------------------------------------------------


@pytest.mark.parametrize("init", [None, "", "from .helper import NAME"])
async def test_siblings_are_imported_as_on_truss_and_relatively(
    load: Load, init: str | None
) -> None:
    write("truss/model/helper.py", "NAME = 'helper'\nfrom . import deeper")
    write("truss/model/deeper.py", "NAME = 'deeper'")
    if init is not None:
        write("truss/model/__init__.py", init)

    model = await load(
        """
        from model.helper import NAME
        from .helper import NAME as RELATIVE
        import model.deeper
        class Model:
            got = NAME, RELATIVE, model.deeper.NAME
            def predict(self): ...
        """
    )

    assert model.got == ("helper", "helper", "deeper")
    assert type(model).__module__ == "model.model"
    assert sys.modules["model"].model is sys.modules["model.model"]


async def test_an_installed_package_named_model_is_not_taken_for_the_models_own(
    load: Load, tmp_path: Path
) -> None:
    write("installed/model/__init__.py", "")
    write("installed/model/helper.py", "NAME = 'the wrong one'")
    sys.path.insert(0, str(tmp_path / "installed"))
    __import__("model.helper")
    write("truss/model/helper.py", "NAME = 'helper'")

    model = await load(
        """
        from model.helper import NAME
        class Model:
            got = NAME
            def predict(self): ...
        """
    )

    assert model.got == "helper"


async def test_a_package_that_imports_its_model_file_has_it_run_once(load: Load) -> None:
    write("truss/model/__init__.py", "from .model import Model")

    model = await load(
        """
        import builtins
        builtins.times = getattr(builtins, "times", 0) + 1
        class Model:
            got = builtins.times
            def predict(self): ...
        """
    )

    assert model.got == 1


@pytest.mark.parametrize(
    ("folder", "module"), [("src/code", "src.code.mine"), (".", "mine"), ("code", "mine")]
)
async def test_the_model_may_be_anywhere_in_its_folder(
    loader: Callable[[str], ModelLoader], folder: str, module: str
) -> None:
    # `code` is a module of Python's: a package of that name would replace it for everybody.
    write("truss/config.yaml", f"{{model_module_dir: {folder}, model_class_filename: mine.py}}")
    write(f"truss/{folder}/mine.py", "class Model:\n    def predict(self): ...")

    loaded = await loader("truss").load()

    assert type(loaded.model).__module__ == module


async def test_a_python_file_imports_its_siblings_by_their_bare_names(
    loader: Callable[[str], ModelLoader],
) -> None:
    write("some/sibling.py", "NAME = 'sibling'")
    write(
        "some/my-model.py",
        "import sibling\nclass Model:\n    got = sibling.NAME\n    def predict(self): ...",
    )

    loaded = await loader("some/my-model.py").load()

    assert loaded.model.got == "sibling"
    assert loaded.name == "my-model"
    assert Path.cwd().name != "some", "only a folder becomes the working directory"


async def test_a_file_named_as_a_module_of_python_replaces_nothing(
    loader: Callable[[str], ModelLoader],
) -> None:
    write("typing.py", "class Model:\n    def predict(self): ...")

    loaded = await loader("typing.py").load()

    assert sys.modules["typing"] is typing
    assert type(loaded.model).__module__ == "streamkit_model_typing"


async def test_a_module_is_imported_from_the_working_directory(
    loader: Callable[[str], ModelLoader],
) -> None:
    write("app/__init__.py", "")
    write("app/models.py", "class Mine:\n    def predict(self): ...")

    loaded = await loader("app.models:Mine").load()

    assert type(loaded.model) is sys.modules["app.models"].Mine
    assert loaded.name == "Mine"


async def test_what_looks_its_module_up_finds_it(load: Load) -> None:
    # On Truss the module is not in sys.modules, and each of these fails.
    model = await load(
        """
        from __future__ import annotations
        import dataclasses
        from typing import ClassVar, Generic, TypeVar
        import pydantic

        T = TypeVar("T")

        @dataclasses.dataclass
        class Options:
            made: ClassVar[int] = 0
            size: int = 1

        class Names(pydantic.RootModel[list[int]]): ...

        class Page(pydantic.BaseModel, Generic[T]):
            items: list[T]

        class Later(pydantic.BaseModel):
            page: Page[Item]

        class Item(pydantic.BaseModel):
            name: str

        class Model:
            names = Names
            later = Later
            def predict(self, options: Options) -> Options: ...
            def load(self):
                self.options = Options(2)
        """
    )

    assert [field.name for field in dataclasses.fields(model.options)] == ["size"]
    assert pickle.loads(pickle.dumps(model.options)) == model.options
    assert typing.get_type_hints(model.predict)["options"] is type(model.options)
    assert model.names.model_validate([1]).root == [1]
    later = model.later.model_validate({"page": {"items": [{"name": "a"}]}})
    assert later.page.items[0].name == "a"


async def test_a_module_that_failed_is_not_left_half_imported(load: Load) -> None:
    await failure(load, "class Model: ...\nraise RuntimeError('once')")

    assert "model.model" not in sys.modules


# -- load, and setup_environment before it ---------------------------------------------------------


async def test_import_constructor_and_sync_load_run_on_one_thread_that_is_not_the_loops(
    load: Load,
) -> None:
    model = await load(
        """
        import threading
        HERE = threading.get_ident()
        class Model:
            def __init__(self):
                self.idents = [HERE, threading.get_ident()]
            def setup_environment(self, environment):
                self.idents.append(threading.get_ident())
            def load(self):
                self.idents.append(threading.get_ident())
            def predict(self): ...
        """
    )

    assert len(set(model.idents)) == 1
    assert threading.get_ident() not in model.idents


@pytest.mark.parametrize(
    "signature",
    [
        "async def load(self):",
        "def load(self): return self.inner()\n    async def inner(self):",
    ],
)
async def test_an_async_load_is_awaited_on_the_loop(load: Load, signature: str) -> None:
    # On Truss it is never awaited, and the model counts as ready.
    model = await load(
        f"""
import anyio, threading
class Model:
    {signature}
        await anyio.sleep(5)
        self.ident = threading.get_ident()
    def predict(self): ...
"""
    )

    assert model.ident == threading.get_ident()
    assert now() == 5.0


@pytest.mark.parametrize("kind", ["", "async "])
async def test_setup_environment_comes_before_load_and_only_if_the_file_says_something(
    load: Load, kind: str, tmp_path: Path
) -> None:
    file = tmp_path / "environment"
    source = f"""
        class Model:
            calls = ()
            {kind}def setup_environment(self, environment): self.calls += (environment,)
            {kind}def load(self): self.calls += ("load",)
            def predict(self): ...
        """
    assert (await load(source)).calls == ("load",)

    file.write_text(" \n")
    assert (await load(source)).calls == ("load",)

    file.write_text('{"name": "staging"}')
    assert (await load(source)).calls == ({"name": "staging"}, "load")


async def test_an_environment_that_is_no_json_is_told(load: Load) -> None:
    write("environment", "{")

    error = await failure(load, KEEPS.format(parameters="environment", got="environment"))

    assert "/environment cannot be read as JSON: " in str(error)


FAILS_TWICE = """
attempts = []
class Model:
    {kind}def load(self):
        attempts.append(1)
        if len(attempts) <= {failures}:
            raise RuntimeError(f"attempt {{len(attempts)}}")
        self.attempts = len(attempts)
    def predict(self): ...
"""


@pytest.mark.parametrize("kind", ["", "async "])
async def test_a_failed_load_is_tried_again_after_a_second(
    load: Load, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = await load(FAILS_TWICE.format(kind=kind, failures=1))

    assert model.attempts == 2
    assert now() == 1.0
    [record] = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert "its load() raised RuntimeError: attempt 1\nTraceback" in record.getMessage()
    assert record.getMessage().endswith("RuntimeError: attempt 1\ntrying again (1 of 1)")


async def test_a_load_that_goes_on_failing_fails_with_its_own_error(load: Load) -> None:
    error = await failure(load, FAILS_TWICE.format(kind="", failures=2))

    assert repr(error.__cause__) == "RuntimeError('attempt 2')"


async def test_how_often_it_is_tried_is_the_variable_of_truss(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUM_LOAD_RETRIES_TRUSS", "3")
    assert (await load(FAILS_TWICE.format(kind="", failures=3))).attempts == 4

    monkeypatch.setenv("NUM_LOAD_RETRIES_TRUSS", "0")
    error = await failure(load, FAILS_TWICE.format(kind="", failures=1))
    assert repr(error.__cause__) == "RuntimeError('attempt 1')"

    monkeypatch.setenv("NUM_LOAD_RETRIES_TRUSS", "often")
    error = await failure(load, FAILS_TWICE.format(kind="", failures=0))
    assert str(error) == "NUM_LOAD_RETRIES_TRUSS should be a number, got 'often'"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def load(self): yield", "Model.load yields, so calling it runs nothing"),
        ("async def load(self): yield", "Model.load yields, so calling it runs nothing"),
        ("load = None", "Model.load is None: a method that there is has to be one; delete it"),
        ("load = 5", "Model.load is no function but 5"),
        (
            "def load(self, path, *rest, size=1, **more): ...",
            "Model.load(path): it is called without arguments: leave out `path`, or take it",
        ),
    ],
)
async def test_a_load_that_cannot_be_called_is_told_and_not_tried_twice(
    load: Load, source: str, said: str
) -> None:
    error = await failure(load, f"class Model:\n    {source}\n    def predict(self): ...")

    assert said in str(error)
    assert describe_failure(error) == str(error)


@pytest.mark.skipif(ANYIO < (4, 14), reason="anyio itself notices it from 4.14 on")
async def test_a_load_that_leaves_a_task_group_open_is_told(load: Load) -> None:
    error = await failure(
        load,
        """
        import anyio
        class Model:
            async def load(self):
                await anyio.create_task_group().__aenter__()
            def predict(self): ...
        """,
    )

    assert "its load() raised RuntimeError: Attempted to exit a cancel scope" in str(error)


# -- failures --------------------------------------------------------------------------------------


FAILS_IN = """
def fail(where):
    if where == "{where}":
        raise LookupError("mine")

fail("import")

class Model:
    def __init__(self):
        fail("constructor")

    {kind}def load(self):
        fail("load()")

    def predict(self): ...
"""


@pytest.mark.parametrize("kind", ["", "async "])
@pytest.mark.parametrize(("where", "line"), [("import", 6), ("constructor", 10), ("load()", 13)])
async def test_a_failure_is_told_with_the_users_own_traceback(
    load: Load, where: str, line: int, kind: str, tmp_path: Path
) -> None:
    error = await failure(load, FAILS_IN.format(where=where, kind=kind))

    said = describe_failure(error)
    file = tmp_path / "truss/model/model.py"
    assert str(error) == f"Model of {file}: its {where} raised LookupError: mine"
    head = f'{error}\nTraceback (most recent call last):\n  File "{file}", line {line}, in '
    assert said.startswith(head), "none of our frames, nor of Python's import"
    assert said.endswith('raise LookupError("mine")\nLookupError: mine')


@pytest.mark.parametrize(("name", "hinted"), [("fastapi", True), ("a_module_of_mine", False)])
async def test_what_trusss_image_has_and_is_missing_here_is_said_to(
    load: Load, name: str, hinted: bool
) -> None:
    missing = f"raise ModuleNotFoundError('No such module', name={name!r})"
    error = await failure(load, f"{missing}\nclass Model: ...")

    assert (f"Truss's image brings {name} along" in str(error)) is hinted


async def test_a_sibling_that_was_imported_by_its_bare_name_is_told(load: Load) -> None:
    write("truss/model/helper.py", "")
    write("truss/model/more/deep.py", "")

    for wanted, name in (("import helper", "helper"), ("from more import deep", "more")):
        error = await failure(load, f"{wanted}\nclass Model:\n    def predict(self): ...")
        assert str(error).endswith(f"; it is beside the file that wants it: import it as `.{name}`")
    error = await failure(load, "import nowhere\nclass Model:\n    def predict(self): ...")
    assert str(error).endswith("No module named 'nowhere'")


def test_the_extra_has_what_the_hint_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {Requirement(each).name for each in project["optional-dependencies"]["truss"]}

    assert names - {project["name"]} == IN_TRUSSS_IMAGE


@pytest.mark.parametrize(
    ("spec", "told"), [("truss/model/model.py", True), ("truss", False), ("lone/model.py", False)]
)
async def test_who_names_the_file_of_a_truss_is_told_to_name_the_folder(
    loader: Callable[[str], ModelLoader],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    spec: str,
    told: bool,
) -> None:
    model = "class Model:\n    def predict(self): ..."
    write("truss/config.yaml", "")
    write("truss/model/model.py", model)
    write("lone/model.py", model)

    await loader(spec).load()

    warned = [each.message for each in caplog.records if each.levelname == "WARNING"]
    assert [f"nothing else of {tmp_path / 'truss'} is looked at" in each for each in warned] == [
        True
    ] * told


async def test_a_syntax_error_is_told_with_its_line(load: Load) -> None:
    said = describe_failure(await failure(load, "class Model:\n    def predict(self) return 1"))

    assert 'model.py", line 2' in said
    assert "def predict(self) return 1" in said


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("SystemExit(3)", "called sys.exit(3)"),
        ("KeyboardInterrupt()", "raised KeyboardInterrupt"),
        ("GeneratorExit()", "raised GeneratorExit"),
        ("asyncio.CancelledError()", "raised CancelledError"),
    ],
)
@pytest.mark.parametrize("where", ["import", "load()"])
async def test_a_model_that_wants_to_end_the_process_ends_its_own_load(
    load: Load, error: str, message: str, where: str
) -> None:
    at_import, in_load = (f"raise {error}", "...") if where == "import" else ("", f"raise {error}")

    told = await failure(
        load,
        f"""
        import asyncio
        {at_import}
        class Model:
            def load(self): {in_load}
            def predict(self): ...
        """,
    )

    assert str(told).endswith(f"its {where} {message}")
    assert now() == 0.0, "nor is it tried again"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("SystemExit(3)", "called sys.exit(3)"),
        ("asyncio.CancelledError()", "was cancelled by code of its own"),
    ],
)
async def test_an_async_load_that_wants_to_end_the_process_ends_itself(
    load: Load, error: str, message: str
) -> None:
    told = await failure(
        load,
        f"""
        import asyncio
        class Model:
            async def load(self): raise {error}
            def predict(self): ...
        """,
    )

    assert str(told).endswith(f"its load() {message}")


async def test_a_class_that_cannot_be_served_is_told_without_a_traceback(load: Load) -> None:
    error = await failure(load, "class Model: ...")

    assert isinstance(error.__cause__, ModelDefinitionError)
    assert "Traceback" not in describe_failure(error)


async def test_a_class_that_did_not_come_about_is_told(load: Load) -> None:
    error = await failure(load, "from json import *")

    assert isinstance(error.__cause__, TargetNotFound)
    assert describe_failure(error).startswith("there is no class Model in ")


async def test_what_is_no_class_is_told(load: Load) -> None:
    error = await failure(load, "Model = 5")

    assert str(error) == "5 is no class: it cannot be called to make a model"
    error = await failure(load, "Model = None")
    assert str(error) == "None is no class: it cannot be called to make a model"


async def test_an_asgi_app_is_told_where_it_belongs(load: Load) -> None:
    error = await failure(load, "from fastapi import FastAPI\nModel = FastAPI()")

    assert "this is an ASGI app (FastAPI) and no model class: run it as it is" in str(error)


async def test_a_function_can_make_the_model(load: Load) -> None:
    model = await load(
        """
        class Real:
            def __init__(self, name): self.name = name
            def predict(self): ...
        def Model(config): return Real(config["model_class_name"])
        """
    )

    assert model.name == "Model"


# -- a load that hangs -----------------------------------------------------------------------------


HANGS = """
from streamkit import current_token
class Model:
    def load(self):
        GATE.wait()
        self.token = current_token()
        SEEN.append(self.token.cancelled)
    def predict(self): ...
"""


async def test_a_load_that_hangs_can_be_left_at_once_and_is_reported_with_its_line(
    load: Load, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, seen = ThreadGate(), list[bool]()
    monkeypatch.setattr("builtins.GATE", gate, raising=False)
    monkeypatch.setattr("builtins.SEEN", seen, raising=False)

    with anyio.move_on_after(3.0) as scope:
        await load(HANGS)

    assert scope.cancelled_caught
    assert now() == 3.0
    await anyio.sleep(0.6)
    assert "the load() of Model of " in caplog.text
    assert "model.py:5 in Model.load" in caplog.text
    gate.open()
    await wait_held(5.0)
    assert seen == [True], "and code that asks is told"


async def test_an_async_load_that_hangs_can_be_left_at_once(load: Load) -> None:
    with anyio.move_on_after(3.0) as scope:
        await load(
            """
            import anyio
            class Model:
                async def load(self): await anyio.sleep_forever()
                def predict(self): ...
            """
        )

    assert scope.cancelled_caught
    assert now() == 3.0


# -- an environment that changes -------------------------------------------------------------------

WATCHES = """
class Model:
    calls = ()
    {kind}def setup_environment(self, environment):
        self.calls += (environment["name"],)
        if environment["name"] == "bad":
            raise LookupError("no such environment")
    def predict(self): ...
"""


async def loaded_and_watched(
    loader: Callable[[str], ModelLoader], source: str, tasks: anyio.abc.TaskGroup
) -> LoadedModel:
    write("truss/config.yaml", "")
    write("truss/model/model.py", source)
    loading = loader("truss")
    loaded = await loading.load()
    tasks.start_soon(loading.watch_environment, loaded)
    return loaded


@pytest.mark.parametrize("kind", ["", "async "])
async def test_a_change_of_the_environment_is_told_to_the_model_within_thirty_seconds(
    loader: Callable[[str], ModelLoader], kind: str, tmp_path: Path
) -> None:
    file = tmp_path / "environment"
    file.write_text(json.dumps({"name": "staging"}))
    async with anyio.create_task_group() as tasks:
        loaded = await loaded_and_watched(loader, WATCHES.format(kind=kind), tasks)
        model: Any = loaded.model

        await anyio.sleep(100)
        assert model.calls == ("staging",), "what has not changed is not told again"

        file.write_text(json.dumps({"name": "production"}))
        await anyio.sleep(31)
        assert model.calls == ("staging", "production")

        file.unlink()
        await anyio.sleep(31)
        assert model.calls == ("staging", "production")
        tasks.cancel_scope.cancel()


async def test_an_error_of_setup_environment_is_logged_and_the_next_change_still_told(
    loader: Callable[[str], ModelLoader], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "environment"
    async with anyio.create_task_group() as tasks:
        loaded = await loaded_and_watched(loader, WATCHES.format(kind=""), tasks)
        model: Any = loaded.model
        for text in ('{"name": "bad"}', "{", '{"name": "good"}'):
            file.write_text(text)
            await anyio.sleep(65)
        tasks.cancel_scope.cancel()

    assert model.calls == ("bad", "good")
    assert "its setup_environment() raised LookupError: no such environment\nTrace" in caplog.text
    assert "/environment cannot be read as JSON" in caplog.text


async def test_nobody_watches_for_a_model_that_does_not_want_to_know(
    loader: Callable[[str], ModelLoader],
) -> None:
    async with anyio.create_task_group() as tasks:
        await loaded_and_watched(loader, "class Model:\n    def predict(self): ...", tasks)

    assert now() == 0.0
