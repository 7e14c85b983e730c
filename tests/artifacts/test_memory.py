"""The artifacts in memory keep the port's contract."""

from __future__ import annotations

import anyio
import pytest

from engine.artifacts.memory import MemoryArtifacts
from engine.testing import artifacts_contract
from engine.testing.artifacts_contract import BUCKET


@pytest.mark.parametrize("check", artifacts_contract.CHECKS, ids=artifacts_contract.name)
def test_memory_keeps_the_contract(check):
    async def open_artifacts():
        return MemoryArtifacts(BUCKET)

    anyio.run(check, open_artifacts)
