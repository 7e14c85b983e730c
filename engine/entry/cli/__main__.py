"""`python -m engine.entry.cli` is `detent`."""

from engine.entry.cli import main

main()
