"""kill -9 of one of several function processes at each effect; another goes on, told by a redelivery or by a sweep.

Usually the process dies after each effect, and is mended in one of the two ways in turn. `DETENT_SLOW_TESTS=1` has it
die before each as well, and mends each in both (`make test-cloud`).
"""

from __future__ import annotations

import os
import signal

import pytest

from tests.cloud.function_world import TEMPLATES, charts, eventually, new_run_id

LEASE_S = "1"
EFFECTS = ("claim", "map", "reserve", "call", "blob", "item_end", "publish", "manifest", "finish")
WAYS = ("redelivery", "sweep")
FEW = [(f"after:{effect}", WAYS[number % 2]) for number, effect in enumerate(EFFECTS)] + [("before:finish", WAYS[0])]
EVERY = [(f"{when}:{effect}", way) for effect in EFFECTS for when in ("before", "after") for way in WAYS]
SCHEDULES = EVERY if os.environ.get("DETENT_SLOW_TESTS") else FEW


STORES = ("sqlite", "firestore") if os.environ.get("DETENT_SLOW_TESTS") else ("sqlite",)

pytestmark = pytest.mark.parametrize("cloud", STORES, indirect=True, scope="module")


@pytest.fixture(scope="module")
def mending(cloud):
    """The other processes, of which none ever dies."""
    with cloud.function(DETENT_LEASE_S=LEASE_S) as function, cloud.function("sweep", DETENT_LEASE_S=LEASE_S) as sweeper:
        yield {"redelivery": function, "sweep": sweeper}


@pytest.mark.parametrize(("point", "way"), SCHEDULES)
def test_a_process_that_dies_at_an_effect_loses_nothing_and_pays_at_most_one_call_more(
    point, way, cloud, mending, simulator
):
    run_id = new_run_id()
    cloud.put(**{run_id: charts("a", templates=TEMPLATES[:2])})
    used, called = cloud.used(), simulator.simulator.counters["calls"]
    with cloud.function(source="tests/cloud/crashing.py", DETENT_TEST_CRASH=point, DETENT_LEASE_S=LEASE_S) as dying:
        assert 0 == dying.event(run_id).status
        dying.wait_until_gone()
        assert -signal.SIGKILL == dying.process.returncode

    def is_mended() -> bool:
        if way == "sweep":
            mending["sweep"].sweep()
        else:
            assert 200 == mending["redelivery"].event(run_id).status
        return cloud.statuses(run_id) not in (["READY"], ["RUNNING"])

    eventually(is_mended)
    cloud.expect_whole(run_id)
    # Two items are under way at once, and each may have lost the one call that it had begun.
    calls = simulator.simulator.counters["calls"] - called
    assert 2 <= calls <= 4
    assert calls <= cloud.used() - used <= 4


def test_an_instance_that_is_told_to_stop_leaves_nothing_held(cloud, mending, simulator):
    """SIGTERM while nothing is under way: what a platform does to an idle instance."""
    run_id = new_run_id()
    cloud.put(**{run_id: charts("a", templates=TEMPLATES[:1])})
    with cloud.function(DETENT_LEASE_S=LEASE_S) as function:
        assert 200 == function.event(run_id).status
        function.process.terminate()
        function.wait_until_gone()

        assert "Traceback" not in function.log.read_text()
    cloud.expect_whole(run_id)
