"""Engines that are broken on purpose: each is caught, by the name of the rule that it breaks."""

from __future__ import annotations

import json

import pytest

from engine.core import canonical
from engine.core.action import Outcome
from engine.core.write import Key, Set
from engine.handlers.registry import ACTIONS
from engine.runs import Held, commit, inbox
from engine.runs.runs import Runs
from engine.store.port import Store
from engine.testing.verification import fencing, play
from engine.testing.verification.rules import judge
from engine.testing.verification.schedule import Schedule
from engine.testing.verification.trace import Effect
from tests.verification.settings import broken_rules, chart_export, variant


def handlers(**replaced):
    found = {name: ACTIONS[name] for name in ACTIONS}
    for name, function in replaced.items():
        action = name.replace("__", ".")
        found[action] = found[action]._replace(function=function)
    return found


def test_without_a_fence_check_a_stale_worker_writes(monkeypatch):
    monkeypatch.setattr(Runs, "own", lambda self, claim, documents: claim.head)

    found = broken_rules(chart_export(), "stalled-owner", enough=1)

    assert "stale-write" in found
    assert "stall" == found["stale-write"].moves[0].verb


def test_without_takeover_a_run_stays_unfinished(monkeypatch):
    claim = Runs.claim

    async def only_of_nobody(self, run_id):
        head = await self.get(run_id)
        return Held(head, declined=True) if head.worker is not None else await claim(self, run_id)

    monkeypatch.setattr(Runs, "claim", only_of_nobody)

    found = broken_rules(chart_export(1), "crash", enough=2)

    assert {"run-unfinished", "step-left-running"} == set(found)


def test_workers_that_ask_without_end_are_seen(monkeypatch):
    """A claim that is refused although the run may be claimed, and a worker that asks again at once."""

    async def held(self, run_id):
        return Held(await self.get(run_id))

    setting = chart_export(1)
    crash_free = play(setting, Schedule())
    monkeypatch.setattr(Runs, "claim", held)
    monkeypatch.setattr("engine.runner.worker.HELD_MS", 0)
    monkeypatch.setattr("engine.testing.verification.loop.TURNS_MAX", 20_000)

    found = judge(crash_free, play(setting, Schedule.read("crash@4+ by=worker")))

    assert "run-endless" in {problem.rule for problem in found}


def test_a_unit_reserved_after_its_call_leaves_the_call_uncovered(tmp_path):
    path = variant(
        tmp_path,
        chart_request=[
            ("initial: RESERVING", "initial: CAPTURING"),
            ('account: "${context.account}"\n        template_id', "account: acc1\n        template_id"),
            ("captured: SUCCEEDED", "captured: RESERVING"),
            ('reserved: {target: CAPTURING, after: "${result.wait_s}"}', "reserved: SUCCEEDED"),
        ],
    )

    found = broken_rules(chart_export(1, path))

    assert Schedule() == found["call-without-unit"]


def test_a_step_finished_outside_of_the_transaction_disagrees_with_its_run():
    setting = chart_export(1)
    succeed = setting.handlers["flow_steps.succeed"]
    key = Key("flow_runs", "20260105-080000_BTCUSDT_k3f7a")

    async def finish(request):
        """As `flow_steps.succeed`, in a commit of its own before the one that ends the run."""

        def decide(documents, now_ms):
            document = dict(documents[key])
            document["steps"][request.params["step_id"]]["status"] = "SUCCEEDED"
            return [Set(key, document)], None

        await request.service(Store).transact([key], decide)
        return Outcome("done", {"status": "SUCCEEDED"})

    declaration = succeed.declaration._replace(kind=ACTIONS["publish.manifest"].declaration.kind)
    broken = {
        **handlers(),
        "flow_steps.succeed": succeed._replace(declaration=declaration, function=finish, documents=None),
    }
    found = broken_rules(chart_export(1, handlers=broken))

    assert "step-and-run-disagree" in found


def test_a_lost_outcome_that_is_taken_for_none_repeats_the_paid_call(monkeypatch):
    found_at_claim = inbox.found_at_claim

    def never_interrupted(machine, head, begun, documents, now_ms):
        return found_at_claim(machine, head, None, documents, now_ms)

    monkeypatch.setattr(inbox, "found_at_claim", never_interrupted)

    found = broken_rules(chart_export(1), "crash", enough=3)

    assert {"unrepeatable-repeated", "call-without-unit"} <= set(found)


def test_a_lease_that_is_not_respected_is_seen():
    key = Key("runs", "r1")
    before = {"fence": 1, "worker": "w1", "claimable_at_ms": 60_000, "begun": True, "seq": 3, "snapshot": "{}"}
    taken = Set(key, {**before, "fence": 2, "worker": "w2"})
    effect = Effect(1, "commit", "claim", "w2", 0)

    assert ["lease-ignored"] == [found.rule for found in fencing.judge("w2", 59_999, effect, {key: before}, [taken])]
    assert [] == list(fencing.judge("w2", 60_000, effect, {key: before}, [taken]))


def test_a_manifest_before_its_pictures_is_seen_while_they_are_missing():
    class Later:
        """Artifacts that promise to publish."""

        def __init__(self, artifacts):
            self._artifacts = artifacts

        def __getattr__(self, name):
            return getattr(self._artifacts, name)

        async def publish(self, sha256, name, *, content_type):
            return None

    async def pictures(request):
        from engine.artifacts.port import Artifacts

        services = {**request.services, Artifacts: Later(request.services[Artifacts])}
        return await ACTIONS["publish.pictures"].function(request._replace(services=services))

    found = broken_rules(chart_export(1, handlers=handlers(publish__pictures=pictures)))

    assert Schedule() == found["manifest-names-missing"]


def test_a_journal_that_does_not_say_what_happened_does_not_replay(monkeypatch):
    writes = commit.entry_writes

    def forgetful(run_id, seq, fence, token, text):
        event = json.loads(text)
        if event.get("name") == "built":
            event["value"] = {**event["value"], "symbol": "ANOTHER"}
        return writes(run_id, seq, fence, token, canonical.encode(event))

    monkeypatch.setattr(commit, "entry_writes", forgetful)
    setting = chart_export(1)
    ending = play(setting, Schedule())

    assert {"journal-differs"} == {problem.rule for problem in judge(ending, ending)}


@pytest.mark.parametrize("text", ["stall@8-", "crash@12+", "switch@9- by=resume", "start@9+"])
def test_the_engine_as_it_is_breaks_none_of_them(text):
    setting = chart_export(1)
    crash_free = play(setting, Schedule())

    assert [] == judge(crash_free, play(setting, Schedule.read(text)))
