"""Below the folder of the model."""

from ..helper import HELP  # noqa: F401, TID252 - as a model may write it
