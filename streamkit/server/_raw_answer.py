"""An answer to a connection that no request came of: it goes past uvicorn, and closes."""

from __future__ import annotations

import json
import uuid
from typing import Final

_ANSWER: Final = """\
HTTP/1.1 {status}\r
content-type: application/json\r
content-length: {length}\r
x-request-id: {request_id}\r
{retry_after}connection: close\r
\r
{body}"""


def raw_answer(
    status: str, *, kind: str, message: str, code: str | None = None, retry_after: int | None = None
) -> bytes:
    """Return the bytes of an error.

    Args:
        status: Number and words.
        kind: Its type.
        message: What is wrong.
        code: Its code; None for the same as its type.
        retry_after: Seconds after which to come again.
    """
    body = json.dumps({"error": {"message": message, "type": kind, "code": code or kind}})
    answer = _ANSWER.format(
        status=status,
        length=len(body),
        request_id=uuid.uuid4().hex,
        retry_after="" if retry_after is None else f"retry-after: {retry_after}\r\n",
        body=body,
    )
    return answer.encode()
