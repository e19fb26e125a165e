"""The layers of a request add up to what the budgets count."""

import pytest

from .scenarios import cost
from .where import SCENARIOS, where

pytestmark = pytest.mark.blocks_the_loop  # blockbuster's wrappers would be counted


def test_our_layers_together_are_what_is_budgeted() -> None:
    ours = sum(count for layer, count in where("coroutine").items() if layer[:9] == "streamkit")

    assert ours == pytest.approx(cost(SCENARIOS["coroutine"][0]).bytecodes, rel=0.01)
