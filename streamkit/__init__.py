"""When nobody is listening any more, the engine stops."""

__version__ = "0.1.0"
