"""The widgets of the terminal UI's screens."""
