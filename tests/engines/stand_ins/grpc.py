"""There to be found; the stub of Triton's client needs nothing of it."""
