"""TARGET: what it may name, and what is said where nothing is there. Nothing is ever imported."""

import sys
from pathlib import Path

import pytest

from streamkit.errors import TargetNotFound
from streamkit.runner._model._target import Form, find_target

MODEL = "raise RuntimeError('imported')\n\nclass Model:\n    def predict(self): ...\n"

pytestmark = pytest.mark.blocks_the_loop  # it reads files; nobody calls it on a loop


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: str, text: str = MODEL) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file.resolve()


def told(spec: str) -> str:
    with pytest.raises(TargetNotFound) as caught:
        find_target(spec)
    return str(caught.value)


def test_a_python_file_serves_its_class_model(folder: Path) -> None:
    source = write("some/summary.py")

    target = find_target("some/summary.py")

    assert (target.form, target.name, target.class_name) == (Form.FILE, "summary", "Model")
    assert (target.source, target.root) == (source, folder / "some")
    assert target.config.predict_concurrency == 1


def test_a_python_file_may_name_another_class() -> None:
    write("models.py", "class Other: ...")

    assert find_target("models.py:Other").class_name == "Other"


@pytest.mark.parametrize("spec", ["truss", "truss/", "./truss"])
def test_a_folder_in_trusss_layout_serves_what_its_config_names(spec: str, folder: Path) -> None:
    write("truss/config.yaml", "model_name: Summaries")
    source = write("truss/model/model.py")

    target = find_target(spec)

    assert (target.form, target.name) == (Form.FOLDER, "Summaries")
    assert (target.source, target.root) == (source, folder / "truss")
    assert target.config_file == folder / "truss" / "config.yaml"


def test_a_folder_says_where_its_class_is() -> None:
    write(
        "truss/config.yaml",
        "{model_class_name: Mine, model_class_filename: my.py, model_module_dir: src/code}",
    )
    source = write("truss/src/code/my.py", "class Mine: ...")

    target = find_target("truss")

    assert (target.source, target.class_name, target.name) == (source, "Mine", "truss")


def test_a_folder_whose_extension_makes_the_model_needs_no_model_file() -> None:
    write("truss/config.yaml", "")
    write("truss/extensions/trt_llm/extension.py")

    assert find_target("truss").source is None


def test_extensions_may_stand_beside_the_folder_whose_own_come_first(folder: Path) -> None:
    write("truss/config.yaml", "trt_llm: {build: {}}")
    write("mine/trt_llm/extension.py")
    write("mine/other/extension.py")

    target = find_target("truss", Path("mine"))
    assert target.source is None
    assert set(target.extensions) == {"other", "trt_llm"}

    own = write("truss/extensions/trt_llm/extension.py")
    assert find_target("truss", Path("mine")).extensions["trt_llm"] == own
    with pytest.raises(TargetNotFound, match=r"--extensions: there is no folder .*/none"):
        find_target("truss", Path("none"))


def test_a_module_starts_from_the_working_directory(folder: Path) -> None:
    source = write("app/models/summary.py")
    write("app/__init__.py", "raise RuntimeError('imported')")

    target = find_target("app.models.summary:Model")

    assert (target.form, target.module) == (Form.MODULE, "app.models.summary")
    assert (target.source, target.root, target.name) == (source, folder, "Model")


def test_a_package_can_hold_the_class() -> None:
    source = write("app/__init__.py", "from .summary import Model")

    assert find_target("app:Model").source == source


def test_an_installed_module_is_found_without_importing_it() -> None:
    sys.modules.pop("this", None)

    target = find_target("json.decoder:JSONDecoder")

    assert target.source is not None
    assert target.source.name == "decoder.py"
    assert told("this:Model").startswith("'this:Model': there is no class Model in ")
    assert "this" not in sys.modules


def test_an_app_in_the_place_of_a_model_is_told_how_it_is_run() -> None:
    write("web.py", "from fastapi import FastAPI\napp = FastAPI()\nclass Question: ...\n")

    assert told("web.py").endswith(
        "it makes an ASGI app: run that as it is, as in `uvicorn web:app`"
    )


def test_the_working_directory_goes_before_what_is_installed() -> None:
    source = write("wave.py")

    assert find_target("wave:Model").source == source


@pytest.mark.parametrize(
    "text",
    [
        "from elsewhere import *",
        "from elsewhere import Model",
        "from elsewhere import Thing as Model",
        "import elsewhere as Model",
        "Model = make()",
        "Model: type = make()",
        "if True:\n    class Model: ...",
        "try:\n    from fast import Model\nexcept ImportError:\n    Model = None",
        "def __getattr__(name): ...",
        "globals()['Mod' + 'el'] = make()",
        "for Model in makers: ...",
        "def Model(**kwargs): ...",
    ],
)
def test_a_class_that_may_come_about_on_import_is_left_to_the_import(text: str) -> None:
    write("models.py", text)

    assert find_target("models.py").class_name == "Model"


@pytest.mark.parametrize(
    "text",
    ["class Model(:", "\0", "# coding: nonsense\nclass Model: ...", f"Model = {'-' * 5000}1"],
)
def test_a_file_that_is_no_python_is_left_to_the_import(text: str) -> None:
    write("models.py", text)

    assert find_target("models.py").source is not None


@pytest.mark.parametrize(
    ("spec", "fragment"),
    [
        ("", "TARGET is empty; TARGET is package.module:Class, a .py file"),
        ("nowhere", "there is no file or folder"),
        ("turss", "did you mean truss?"),
        ("models", "did you mean models.py?"),
        ("app.models", "a module needs its class, app.models:Model"),
        ("truss/config.yaml", "name its folder, 'truss'"),
        ("notes.txt", "is neither a .py file nor a folder"),
        ("model.py", "did you mean models.py?"),
        ("models.py:Modle", "did you mean Model?"),
        ("models.py:Entirely", "there is Model"),
        ("models.py:a.b", "'a.b' is no name of a class"),
        ("models:", "'' is no name of a class"),
        ("modles:Model", "there is no module modles on the import path"),
        ("modles:Model", "did you mean models?"),
        ("app.other:Model", "there is no module other in "),
        ("models.inner:Model", "there is no module inner in models"),
        ("app:Model", "app is a folder; name a module in it"),
        ("bare", "there is no config.yaml in "),
        ("yml", "rename config.yml"),
        ("hollow", "model/model.py; did you mean models.py?"),
        ("engine", "needs extensions/trt_llm/extension.py"),
    ],
)
def test_what_is_not_there_is_told_with_where_and_a_way_out(spec: str, fragment: str) -> None:
    write("models.py")
    write("truss/config.yaml")
    write("app/models.py")
    write("notes.txt")
    write("bare/model/model.py")
    write("yml/config.yml")
    write("hollow/config.yaml", "")
    write("hollow/model/models.py")
    write("engine/config.yaml", "trt_llm: {build: {}}")

    assert fragment in told(spec)
