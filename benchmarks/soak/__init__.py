"""Ten thousand clients, half with a fault: who stays gets every byte, and nothing is left."""
