"""constraints.txt pins what pyproject.toml asks for, and says nothing about where it came from."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[^ ;]+)( ; .+)?")
REFRESH = "run `make constraints`"


def pins() -> list[re.Match[str]]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    matches = [(line, PIN.fullmatch(line)) for line in lines]

    assert not [line for line, match in matches if match is None], "names and versions only"
    return [match for _, match in matches if match]


def test_every_dependency_is_pinned_to_a_version_that_it_admits() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    asked = [Requirement(line) for lines in (project["dependencies"], *extras) for line in lines]
    pinned = {match["name"]: match["version"] for match in pins()}
    wrong = [
        str(requirement)
        for requirement in asked
        if requirement.name != project["name"]
        and pinned.get(canonicalize_name(requirement.name), "0") not in requirement.specifier
    ]

    assert not wrong, REFRESH
