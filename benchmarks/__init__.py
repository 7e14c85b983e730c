"""How fast detent is, measured side by side with what it would be chosen over; see README.md in this folder.

Programs that measure, not a part of the engine: nothing in `engine` imports this, and it is not installed.
"""
