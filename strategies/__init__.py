"""Search strategies, one per file. Installed as `tts_tui.strategies`."""

if __name__ != "tts_tui.strategies":
    raise ImportError("import tts_tui.strategies, not strategies")
