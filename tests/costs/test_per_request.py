"""What one request costs beside its tokens, and what one message of a websocket does."""

import pytest

from . import apps
from .scenarios import Scenario, cost, engine_requests, messages, predictions, requests
from .threads import two_threads

pytestmark = pytest.mark.blocks_the_loop  # blockbuster's wrappers would be counted

UNITS = 16
CASES: dict[str, Scenario] = {
    "bare": requests(apps.bare_answer, method="GET"),
    "middleware": requests(apps.CancellationMiddleware(apps.bare_answer), method="GET"),
    "coroutine": requests(apps.coroutine_endpoint(apps.answer_at_once)),
    "stream": requests(apps.event_stream(lambda: apps.ready(1))),
    "engine": engine_requests,
    "predict": predictions("Model"),
}
SOCKETS = {"bare": apps.bare_socket, "socket": apps.echo_socket}


@pytest.mark.parametrize("case", CASES)
def test_a_request_costs_what_is_budgeted(case: str, check) -> None:
    check(f"request.{case}", dict(cost(CASES[case], UNITS).items()))


@two_threads
def test_a_request_to_a_sync_model_costs_what_is_budgeted(check) -> None:
    counts = cost(predictions("SyncModel"), UNITS)

    # How often two threads meet is not ours to say, hence neither turns nor calls; nor is whether
    # one has to be waited for, hence no timers (seen both ways on one busy machine).
    exact = {name: getattr(counts, name) for name in ("tasks", "bytecodes")}
    check("request.predict_sync", exact)


@pytest.mark.parametrize(
    ("case", "app"), [("bare", apps.bare_socket), ("socket", apps.echo_socket)]
)
def test_a_message_costs_what_is_budgeted(case: str, app, check) -> None:
    check(f"message.{case}", dict(cost(messages(app)).items()))
