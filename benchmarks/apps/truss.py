"""Truss's runner, as its image holds it: server, model and config in one folder.

``python -m benchmarks.apps.truss FOLDER PORT`` puts them together in the current folder and starts
it; what it does otherwise takes Docker. One thing is not as shipped: it listens on loopback alone.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import uvicorn

WRITE_OUT = """
import pathlib, sys
from truss.base.truss_config import TrussConfig
path = pathlib.Path(sys.argv[1])
TrussConfig.from_yaml(path).write_to_yaml_file(path, verbose=True)
"""


def assemble(model: Path, app: Path) -> None:
    """What its Dockerfile does."""
    found = importlib.util.find_spec("truss")  # not imported: that loads its client
    assert found is not None
    templates = Path((found.submodule_search_locations or [""])[0]) / "templates"
    shutil.copytree(templates / "server", app)
    shutil.copytree(templates / "shared", app / "_truss_shared")
    shutil.copytree(model, app, dirs_exist_ok=True)
    # With all defaults written out; in a process of its own, for it loads the whole client.
    subprocess.run([sys.executable, "-c", WRITE_OUT, app / "config.yaml"], check=True)


def main(model: str, port: str) -> None:
    app = Path("app").resolve()
    assemble(Path(model), app)
    os.environ["INFERENCE_SERVER_PORT"] = port
    os.chdir(app)
    sys.path[0] = str(app)
    configure = uvicorn.Config.__init__

    @functools.wraps(configure)
    def on_loopback(self, *args, **options):
        configure(self, *args, **{**options, "host": "127.0.0.1"})

    uvicorn.Config.__init__ = on_loopback
    runpy.run_path("main.py", run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
