"""Prints the indexes of a `firestore.indexes.json` for `deploy.sh`, which has them made.

In: the file's path. Out: a line for each index and for each field that is spared the automatic ones, its parts divided
by tabs, as `gcloud firestore indexes` takes them. Standard library only: it runs anywhere.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path


def lines_of(text: str) -> Iterator[str]:
    """One line for each index in the JSON text, then one for each field without any."""
    given = json.loads(text)
    for index in given["indexes"]:
        fields = (f"field-path={field['fieldPath']},order={field['order'].lower()}" for field in index["fields"])
        words = ["composite", "create", f"--collection-group={index['collectionGroup']}", "--query-scope=collection"]
        yield "\t".join([*words, *(f"--field-config={field}" for field in fields)])
    for field in given.get("fieldOverrides", ()):
        assert field["indexes"] == [], "only fields without any index are spared here"
        words = ["fields", "update", field["fieldPath"], f"--collection-group={field['collectionGroup']}"]
        yield "\t".join([*words, "--disable-indexes"])


if __name__ == "__main__":
    for line in lines_of(Path(sys.argv[1]).read_text(encoding="utf-8")):
        sys.stdout.write(f"{line}\n")
