"""A model class over HTTP: Truss's routes, errors and answers."""
