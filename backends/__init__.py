"""Policies and reward models, in this process and on servers. Installed as `tts_tui.backends`."""

if __name__ != "tts_tui.backends":
    raise ImportError("import tts_tui.backends, not backends")
