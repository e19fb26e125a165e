"""When nobody is listening any more, the engine stops."""

__all__ = ["__version__"]

__version__ = "0.1.0"
