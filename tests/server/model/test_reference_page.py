"""The page on HTTP has the routes that there are."""

import re
from pathlib import Path

from streamkit.server.app import create_app

from .test_answers import Gives

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "http.md").read_text()


async def test_the_routes_of_a_model_class_on_the_page_are_those_that_there_are(serve) -> None:
    section = PAGE.split("## A model class\n")[1].split("**The body**")[0]
    described = set(re.findall(r"`(?:GET|POST) ([^`]+)`", section))

    paths, of_an_engine_too = set(serve(Gives(1)).paths), set(create_app().paths)
    assert described <= paths
    assert paths - described <= of_an_engine_too
