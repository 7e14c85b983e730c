"""Where the functions of these tests keep what they do."""

from __future__ import annotations

import pytest

from engine.testing.chart_img import ULTRA, running_simulator
from tests.cloud.function_world import KEY, Cloud, Place


@pytest.fixture(scope="module")
def simulator():
    with running_simulator({KEY: ULTRA}) as running:
        yield running


@pytest.fixture(scope="module", params=["sqlite"])
def cloud(request, tmp_path_factory, simulator):
    """A store, objects and an API, shared by the tests of one module; each has flow runs of its own."""
    folder = tmp_path_factory.mktemp("cloud")
    place = Place(f"sqlite:///{folder}/detent.db", f"folder:{folder}/out", {})
    return Cloud(folder, place, simulator)
