"""The fixtures of the server's tests: an app over an engine, and one over a model class."""

from tests.server.conftest import generate, get, make_app, metrics
from tests.server.model.conftest import ask, serve

__all__ = ["ask", "generate", "get", "make_app", "metrics", "serve"]
