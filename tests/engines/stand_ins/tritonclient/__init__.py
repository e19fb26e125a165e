"""What `import tritonclient` finds where this folder is in the path: the stub."""
