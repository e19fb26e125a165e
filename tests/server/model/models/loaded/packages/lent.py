"""In packages/."""

BORROWED = "borrowed"
