"""The life of a request, as its table says."""

from pathlib import Path

import pytest

from streamkit._core import LIVE, TRANSITIONS, Event, Phase, advance, diagram
from streamkit.errors import UsageBug

DOC = Path(__file__).parents[2] / "docs" / "explanation" / "lifecycle.md"


def test_each_phase_has_a_row():
    assert set(TRANSITIONS) == set(Phase)


@pytest.mark.parametrize("phase", sorted(LIVE))
def test_what_can_be_cancelled_can_also_end_by_itself_or_fail(phase: Phase):
    assert advance(phase, Event.CANCEL) is Phase.ABORTING
    assert advance(phase, Event.FINISH) is Phase.FINISHED
    assert advance(phase, Event.FAIL) is Phase.FAILED


def test_every_phase_can_be_reached_from_the_first():
    seen = {Phase.READING}
    while new := {to for phase in seen for to in TRANSITIONS[phase].values()} - seen:
        seen |= new

    assert seen == set(Phase)


def test_a_cancelled_request_never_counts_as_finished():
    seen = {Phase.ABORTING}
    while new := {to for phase in seen for to in TRANSITIONS[phase].values()} - seen:
        seen |= new

    assert seen == {Phase.ABORTING, Phase.CANCELLED, Phase.QUARANTINED}


def test_a_step_that_the_table_lacks_is_the_callers_bug_and_is_named():
    with pytest.raises(UsageBug, match="a request in phase finished cannot token; it allows: noth"):
        advance(Phase.FINISHED, Event.TOKEN)


def test_the_documented_diagram_is_the_table():
    assert diagram() in DOC.read_text(), (
        "docs/explanation/lifecycle.md is stale; replace its diagram with the output of: "
        "python -c 'from streamkit._core import diagram; print(diagram())'"
    )
