"""Every fault of the chaos kit, in every phase, on every server: what stops, when, and says who."""
