"""Handlers that do not do as they should, and what a run makes of each answer."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import anyio
import pytest

import engine
from engine.core import bounds
from engine.core.action import Blob, Decision, Failure, Outcome, Remark
from engine.core.secret import Secrets
from engine.core.write import Create, Key, Set, Update
from engine.errors import ArtifactUnavailableError, SecretLeakError
from engine.runner import perform
from tests.runner.world import World

pytestmark = pytest.mark.anyio

SECRET = "sk-live-0123456789"
STATES = """
{A: {invoke: {action: act, timeout: 30, assign: {v: '${result}'}}, on: {done: END}, catch: {target: BAD, assign: {e: '${error}'}}},
 END: {type: final, output: '${context.v}'}, BAD: {type: final, status: FAILED, output: '${context.e}'}}
"""


async def output_of(handler: Any, world: World | None = None, **more: Any) -> Any:
    """What a run ends with whose one action is this handler."""
    world = world or World()
    world.action("act", **({"kind": "repeatable"} | more))(handler)
    async with world.engine(secrets=Secrets([SECRET])) as app:
        result = await app.run(world.states(STATES), {}, run_id="r")
    assert result.is_final
    world.expect_sound()
    assert SECRET not in repr(world.memory._texts)
    return result.output


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


class Rude:
    """A value whose own methods raise."""

    def __iter__(self) -> Any:
        raise OSError("no")


ODD = {
    "nothing": None, "a string": "done", "an outcome's name": Outcome(None), "an empty name": Outcome(""),  # type: ignore[arg-type]
    "a number for a name": Outcome(7), "NaN": Outcome("done", {"a": float("nan")}), "an object": Outcome("done", {"a": object()}),  # type: ignore[arg-type]
    "bytes": Outcome("done", b"x"), "a key that is no string": Outcome("done", {1: 2}), "too deep": Outcome("done", nested(101)),
    "far too deep": Outcome("done", nested(100_000)), "half a surrogate": Outcome("done", "\ud800"), "too long a number": Outcome("done", 10**5000),
    "a rude value": Outcome("done", Rude()), "the class": Outcome, "a set": {1},
}  # fmt: skip


@pytest.mark.parametrize("answer", ODD)
async def test_an_answer_that_is_none_is_an_internal_failure(answer: str) -> None:
    async def handler(request: engine.ActionRequest) -> Any:
        return ODD[answer]

    assert (await output_of(handler))["code"] == "INTERNAL"


@pytest.mark.parametrize("answer", ODD)
async def test_a_decision_that_is_none_is_an_internal_failure(answer: str) -> None:
    def decide(request: Any, found: Any, now: Any) -> Any:
        return Decision(ODD[answer])

    output = await output_of(decide, kind="transactional", documents=lambda request: [])
    assert output["code"] == "INTERNAL"


KEY = Key("flow", "f")
WRITES: dict[str, Any] = {
    "twice": (Set(KEY, {}), Set(KEY, {})), "no json": (Set(KEY, {"a": object()}),), "create over": (Create(KEY, {}),),
    "update of nothing": (Update(Key("flow", "none"), {("a",): 1}),), "too large": (Set(KEY, {"a": "x" * 5_000_000}),),
    "no writes": 7, "no key": (Set(("flow", "f"), {}),), "bad id": (Set(Key("flow", "a/b"), {}),), "the run itself": (Set(Key("runs", "r"), {}),),
    "too deep": (Set(KEY, {"a": nested(5_000)}),), "overlapping paths": (Update(KEY, {("a",): 1, ("a", "b"): 2}),),
}  # fmt: skip


@pytest.mark.parametrize("writes", WRITES)
async def test_writes_that_cannot_be_made_are_a_failure_and_none_of_them_is_made(writes: str) -> None:
    """Not a reason for the run to stay, nor for the worker's other runs to end."""
    world = World()
    await world.memory.transact([KEY], lambda found, now: ([Set(KEY, {"n": 1})], None))

    def decide(request: Any, found: Any, now: Any) -> Any:
        return Decision(Outcome("done"), WRITES[writes])

    output = await output_of(decide, world, kind="transactional", documents=lambda request: [KEY])
    assert output["code"] == "INTERNAL"
    assert world.documents("flow") == {"f": {"n": 1}}


@pytest.mark.parametrize(
    "documents",
    [lambda request: 1 / 0, lambda request: None, lambda request: ["x"], lambda request: [Key("a/b", "c")]],
    ids=["raises", "none", "no keys", "bad id"],
)
async def test_documents_that_cannot_be_named_leave_it_to_the_decide(documents: Any) -> None:
    def decide(request: Any, found: Any, now: Any) -> Decision:
        return Decision(Outcome("done", {"k": found[KEY]}))

    assert (await output_of(decide, kind="transactional", documents=documents))["code"] == "INTERNAL"


async def test_a_handler_that_raises_is_told_by_its_class_alone() -> None:
    async def handler(request: Any) -> Any:
        raise ExceptionGroup("many", [ValueError(SECRET), KeyError("x")])

    assert await output_of(handler) == {
        "code": "INTERNAL",
        "message": "the handler of act raised ExceptionGroup",
        "retriable": False,
    }


async def test_a_handler_that_lets_a_cancellation_of_its_own_escape_fails_by_itself() -> None:
    async def handler(request: Any) -> Any:
        raise asyncio.CancelledError

    assert (await output_of(handler))["code"] == "INTERNAL"


async def test_a_handler_that_takes_too_long_times_out() -> None:
    world = World()
    ended: list[str] = []

    async def handler(request: Any) -> Any:
        try:
            await anyio.Event().wait()
        finally:
            ended.append("cancelled")

    assert (await output_of(handler, world))["code"] == "TIMEOUT"
    assert ended == ["cancelled"]
    assert world.clock.now_ms() - 1_700_000_000_000 == 30_000


async def test_a_plain_handler_runs_in_a_thread_and_may_time_out_too() -> None:
    """A thread cannot be stopped: it is left alone, and its answer with it."""
    world, release, begun = World(), threading.Event(), threading.Event()

    def handler(request: Any) -> Any:
        begun.set()
        release.wait(10)
        return Outcome("done", "too late")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(move_on, world, begun)
        assert (await output_of(handler, world))["code"] == "TIMEOUT"
    release.set()


async def move_on(world: World, begun: threading.Event) -> None:
    """Wait for a thread, and then move the clock, which stands while a thread is busy."""
    await anyio.to_thread.run_sync(begun.wait)
    world.clock.advance(30)


async def test_a_plain_handlers_answer_is_taken() -> None:
    assert (
        await output_of(lambda request: Outcome("done", threading.current_thread() is threading.main_thread())) is False
    )


async def test_an_answer_in_the_last_moment_counts() -> None:
    """The timeout and the answer fall together: an answer that is there is never thrown away."""
    world = World()

    async def handler(request: Any) -> Any:
        try:
            await anyio.Event().wait()
        except asyncio.CancelledError:
            return Outcome("done", "just so")

    assert await output_of(handler, world) == "just so"


# Failures


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (Failure("X", "x", {"a": float("nan")}), {"code": "X"}), (Failure("X", "x", [1]), {"code": "X"}), (Failure(None, None), {"code": "INTERNAL"}),  # type: ignore[arg-type]
        (Failure("X", 7, retriable="yes"), {"code": "X", "message": "7", "retriable": True}), (Failure("X", "\ud800"), {"code": "X", "message": "?"}),  # type: ignore[arg-type]
        (Failure("X", "x", None, True, "soon"), {"code": "X"}), (Failure("X", "x", None, True, float("nan")), {"code": "X"}),  # type: ignore[arg-type]
        (Failure("X", "x", None, True, float("inf")), {"retry_after_s": bounds.DELAY_S_MAX}), (Failure("X", "x", None, True, -1), {"code": "X"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["repeatable", "transactional"])
async def test_a_failure_is_put_right_and_never_lost(failure: Failure, expected: dict[str, Any], kind: str) -> None:
    def decide(*given: Any) -> Any:
        return Decision(failure) if kind == "transactional" else failure

    more = {"documents": lambda request: []} if kind == "transactional" else {}
    output = await output_of(decide, kind=kind, **more)
    assert output | expected == output


# Blobs


async def test_a_blob_is_stored_before_the_commit_that_names_it() -> None:
    world = World()
    seen: list[bool] = []

    async def before(keys: Any) -> None:
        seen.append(bool(world.blobs.content))

    async def handler(request: Any) -> Any:
        world.store.before = before
        return Outcome("done", {"pictures": [Blob(b"png", "image/png")]})

    output = await output_of(handler, world)
    (sha256,) = world.blobs.content
    assert output == {"pictures": [{"sha256": sha256, "size": 3, "content_type": "image/png"}]}
    assert seen
    assert all(seen)


@pytest.mark.parametrize(("failures", "code"), [(2, None), (3, "BLOB_WRITE_FAILED")])
async def test_storing_a_blob_is_tried_again_before_a_paid_answer_is_given_up(failures: int, code: str | None) -> None:
    world = World()
    world.blobs.trouble = [ArtifactUnavailableError("full") for _ in range(failures)]
    output = await output_of(lambda request: Outcome("done", Blob(b"x")), world)
    assert output.get("code") == code


@pytest.mark.parametrize(
    ("trouble", "code"), [(OSError("disk"), "INTERNAL"), (SecretLeakError("a secret"), "SECRET_LEAKED")]
)
async def test_other_troubles_of_the_artifact_store_are_failures_of_the_action(trouble: Exception, code: str) -> None:
    world = World()
    world.blobs.trouble = [trouble]
    assert (await output_of(lambda request: Outcome("done", Blob(b"x")), world))["code"] == code


@pytest.mark.parametrize("more", [-1, 0, 1])
async def test_bytes_of_a_blob(more: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert perform.BLOB_BYTES_MAX == bounds.BLOB_BYTES_MAX
    monkeypatch.setattr(perform, "BLOB_BYTES_MAX", 100)
    output = await output_of(lambda request: Outcome("done", Blob(b"x" * (100 + more))))
    assert output.get("code") == ("INTERNAL" if more > 0 else None)


# Secrets


@pytest.mark.parametrize(
    "answer",
    [
        Outcome("done", {"k": SECRET}),
        Outcome("done", [f"x{SECRET}x"]),
        Failure("X", SECRET),
        Failure("X", "x", {"a": SECRET}),
        Outcome(SECRET),
    ],
    ids=["value", "inside", "message", "details", "name"],
)
async def test_an_answer_that_holds_a_secret_is_dropped(answer: Any) -> None:
    assert (await output_of(lambda request: answer))["code"] == "SECRET_LEAKED"


@pytest.mark.parametrize(
    "write",
    [
        Set(KEY, {"a": SECRET}),
        Set(KEY, {SECRET: 1}),
        Set(Key("flow", SECRET), {}),
        Update(KEY, {("a", SECRET): 1}),
        Update(KEY, {("a",): [SECRET]}),
    ],
)
async def test_a_write_that_holds_a_secret_is_dropped_with_its_step(write: Any) -> None:
    world = World()

    def decide(request: Any, found: Any, now: Any) -> Any:
        return Decision(Outcome("done"), (write,))

    assert (await output_of(decide, world, kind="transactional", documents=lambda request: [KEY]))[
        "code"
    ] == "SECRET_LEAKED"
    assert world.documents("flow") == {}


async def test_a_refused_step_takes_its_writes_and_remarks_with_it() -> None:
    """Found by itself: the action's writes stood though the journal said that its answer was refused."""
    world = World()

    def decide(request: Any, found: Any, now: Any) -> Any:
        return Decision(Outcome("done", "x" * 5_000_000), (Set(KEY, {"n": 1}),), (Remark("it_happened"),))

    output = await output_of(decide, world, kind="transactional", documents=lambda request: [KEY])
    assert output["code"] == "CONTEXT_TOO_LARGE"
    assert (world.documents("flow"), world.observer.remarks) == ({}, [])


async def test_a_secret_of_quotes_is_found_in_the_journal_as_json_holds_it() -> None:
    """Found by itself: the event was searched as Python shows it, which escapes such a value in another way."""
    world, secret = World(), 'it\'s "quoted" key'
    world.action("act")(lambda request: Outcome("done", {"unused": secret}))
    states = "{A: {invoke: {action: act}, on: {done: END}}, END: {type: final}}"
    async with world.engine(secrets=Secrets([secret])) as app:
        result = await app.run(world.states(states), {}, run_id="r")
    assert result.error["code"] == "SECRET_LEAKED"
    assert "quoted" not in repr(world.memory._texts)
