"""Where the functions of these tests keep what they do: on each store that there is."""

from __future__ import annotations

import pytest

from engine.testing.chart_img import ULTRA, running_simulator
from engine.testing.firestore_emulator import EMULATOR_HOST, fresh_project
from tests.cloud.function_world import KEY, Cloud, Place

STORES = ("sqlite", "firestore")


@pytest.fixture(scope="module")
def simulator():
    with running_simulator({KEY: ULTRA}) as running:
        yield running


@pytest.fixture(scope="module", params=STORES)
def cloud(request, tmp_path_factory, simulator):
    """A store, objects and an API, shared by the tests of one module; each has flow runs of its own."""
    folder = tmp_path_factory.mktemp("cloud")
    artifacts = f"folder:{folder}/out"
    if request.param == "sqlite":
        yield Cloud(folder, Place(f"sqlite:///{folder}/detent.db", artifacts, {}), simulator)
        return
    environ = {EMULATOR_HOST: request.getfixturevalue("firestore_emulator")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(EMULATOR_HOST, environ[EMULATOR_HOST])
        yield Cloud(folder, Place(f"firestore://{fresh_project()}/(default)", artifacts, environ), simulator)
