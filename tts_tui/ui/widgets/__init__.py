"""Parts of the terminal UI's screens."""
