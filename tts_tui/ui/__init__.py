"""The terminal UI. The only package that imports rich or textual."""
