"""Where the functions of these tests keep what they do: in a file and a folder, or all of Google Cloud's components.

`firestore` is every real component at once: Firestore's emulator, Cloud Storage's, the API's simulator.
"""

from __future__ import annotations

import pytest

from engine.testing.chart_img import ULTRA, running_simulator
from engine.testing.firestore_emulator import EMULATOR_HOST, fresh_project
from engine.testing.storage_emulator import running_storage
from tests.cloud.function_world import BUCKET, KEY, STORAGE_HOST, Cloud, Place

STORES = ("sqlite", "firestore")


@pytest.fixture(scope="module")
def simulator():
    with running_simulator({KEY: ULTRA}) as running:
        yield running


@pytest.fixture(scope="module")
def storage():
    with running_storage(BUCKET) as running:
        yield running


@pytest.fixture(scope="module", params=STORES)
def cloud(request, tmp_path_factory, simulator):
    """A store, objects and an API, shared by the tests of one module; each has flow runs of its own."""
    folder = tmp_path_factory.mktemp("cloud")
    if request.param == "sqlite":
        yield Cloud(folder, Place(f"sqlite:///{folder}/detent.db", f"folder:{folder}/out", {}), simulator)
        return
    environ = {
        EMULATOR_HOST: request.getfixturevalue("firestore_emulator"),
        STORAGE_HOST: request.getfixturevalue("storage").url,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        yield Cloud(folder, Place(f"firestore://{fresh_project()}/(default)", "gs:", environ), simulator)
