"""The token that everybody sends."""

TOKEN = "token 0123456789 abcdef "  # 24 bytes


def framed(token: str) -> str:
    """One server-sent event, by hand."""
    return f"data: {token}\r\n\r\n"
