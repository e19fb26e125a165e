"""The table of budgets holds in both directions, and has no row that nobody counts."""

import pytest

from . import budgets, instructions, test_idle, test_per_cancel, test_per_request, test_per_token


@pytest.mark.parametrize(
    ("counted", "says"),
    [
        (101, "too much"),
        (100, ""),
        (90, ""),
        (89, "lower the budget"),
    ],
)
def test_a_budget_is_neither_exceeded_nor_generous(counted: float, says: str) -> None:
    problem = budgets._problem("calls", counted, 100, budgets.DUST)

    assert problem.endswith(says)
    assert bool(problem) == bool(says)


def test_a_count_that_has_no_budget_is_a_problem() -> None:
    assert "no budget" in budgets._problem("calls", 1, None, budgets.DUST)


def test_every_row_of_the_table_is_counted() -> None:
    counted = {f"token.{case}" for case in test_per_token.CASES}
    counted |= {"token.sync_generator", "token.sync_generator_thread"}
    counted |= {f"request.{case}" for case in (*test_per_request.CASES, "predict_sync")}
    counted |= {f"message.{case}" for case in test_per_request.SOCKETS}
    counted |= {f"cancel.{case}" for case in test_per_cancel.STAGES}
    counted |= {f"idle_minute.{case}" for case in ("byte_stream", "event_stream", "process")}
    counted |= {f"instructions.{case}" for case in instructions.RIVALS}
    counted |= {f"memory.{case}" for case in test_idle.APPS}

    assert set(budgets.all_budgets()) == counted
