"""Beside the model."""

HELP = "help"
