"""Prints the indexes of a `firestore.indexes.json` for `deploy.sh`, which has them made.

In: the file's path. Out: a line for each index, its parts divided by tabs: the collection, then one `--field-config`
for each field, as `gcloud firestore indexes composite create` takes them. Standard library only: it runs anywhere.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path


def lines_of(text: str) -> Iterator[str]:
    """One line for each index in the JSON text."""
    for index in json.loads(text)["indexes"]:
        fields = (f"field-path={field['fieldPath']},order={field['order'].lower()}" for field in index["fields"])
        yield "\t".join([index["collectionGroup"], *(f"--field-config={field}" for field in fields)])


if __name__ == "__main__":
    for line in lines_of(Path(sys.argv[1]).read_text(encoding="utf-8")):
        sys.stdout.write(f"{line}\n")
