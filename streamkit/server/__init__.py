"""A ready-made process: settings, app, routes, command line.

Nothing is imported here, so that ``streamkit --help`` need not wait for a web framework:
``streamkit.server.app`` has the app, ``streamkit.server.settings`` what can be set.
"""

from __future__ import annotations
