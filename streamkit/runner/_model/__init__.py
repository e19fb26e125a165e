"""The request-aware model runner: a Truss model class, run so that leaving stops it."""
