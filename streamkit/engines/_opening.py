"""What an engine was asked to open: the request, its id, and the token that it hangs on."""

from __future__ import annotations

from dataclasses import dataclass

from streamkit._core import CancelToken

from ._base import PhaseListener
from ._request import GenerationRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What ``Engine.open()`` was asked for.

    Attributes:
        request: What to generate.
        request_id: The id it goes by.
        token: The cancel token it hangs on.
        on_phase: Told of each phase, or None.
    """

    request: GenerationRequest
    request_id: str
    token: CancelToken
    on_phase: PhaseListener | None = None
