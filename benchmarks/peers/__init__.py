"""One program for each that is measured. All speak `protocol.py`; each runs in its peer's own environment."""
