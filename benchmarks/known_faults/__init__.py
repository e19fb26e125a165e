"""Faults of servers that others wrote, as `streamkit chaos` finds them from outside."""
