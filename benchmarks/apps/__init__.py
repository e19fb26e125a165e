"""What is served: the same sources behind each framework, nothing else in the way."""
