"""A model class over HTTP: its routes, its answers, its errors as Truss's clients know them."""

from __future__ import annotations

from ._routes import ModelRoutes
from ._service import ModelService, options_of

__all__ = ["ModelRoutes", "ModelService", "options_of"]
