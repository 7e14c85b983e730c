"""The contract's scenarios once more, in the stores in which runs are really kept: a file, and Firestore.

`tests/end_to_end/test_contract.py` runs them in memory. What is expected is the same text for all three.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.chart_export_world import export
from tests.end_to_end.scenarios import TABLE, check


@pytest.mark.parametrize("name", TABLE)
def test_scenario_in_a_file(name: str, tmp_path: Path) -> None:
    make, expected = TABLE[name]

    check(export(make(), f"sqlite:///{tmp_path}/detent.db"), expected, name)


@pytest.mark.parametrize("name", TABLE)
def test_scenario_in_firestore(name: str, firestore: str) -> None:
    make, expected = TABLE[name]

    check(export(make(), firestore), expected, name)
