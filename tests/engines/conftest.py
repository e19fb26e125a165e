"""What the tests of engines share: cancels as someone would ask for them, and a scripted engine."""

from collections.abc import Callable

import pytest

from streamkit._core import Cancellation, Reason, now

Ask = Callable[..., Cancellation]


@pytest.fixture
def asked() -> Ask:
    """Make the cancellation that someone asks for now."""

    def ask(detail: str = "asked by the test") -> Cancellation:
        return Cancellation(reason=Reason.REQUESTED, at=now(), detail=detail)

    return ask
