"""What a user with another API writes against: `engine.action`, `engine.Engine`, and nothing else."""

from __future__ import annotations

import anyio
import pytest

import engine
from engine.errors import DefinitionError, InvalidRequestError
from engine.handlers.registry import Registry

DEMO = """
machine: demo
version: 1
input: {type: object, required: [n], properties: {n: {type: integer}}}
initial: DOUBLING
states:
  DOUBLING:
    invoke: {action: demo.double, with: {n: "${input.n}"}, assign: {value: "${result.value}"}}
    on: {done: DONE}
  DONE: {type: final, output: {value: "${context.value}"}}
"""


@pytest.fixture
def actions():
    registry = Registry(own=())
    registry.performed = []

    @registry.action("demo.double", kind="repeatable")
    async def double(request: engine.ActionRequest) -> engine.Outcome:
        registry.performed.append(request.idempotency_key)
        return engine.Outcome("done", {"value": request.params["n"] * 2})

    return registry


@pytest.fixture
def demo(tmp_path, actions):
    (tmp_path / "demo.yaml").write_text(DEMO)

    def run(work):
        async def main():
            async with engine.Engine(
                store=f"sqlite:///{tmp_path}/detent.db", artifacts=f"folder:{tmp_path}/out", actions=actions
            ) as app:
                return await work(app, app.load(tmp_path / "demo.yaml"))

        return anyio.run(main)

    return run


def test_a_run_answers_state_status_output_and_error(demo):
    result = demo(lambda app, machine: app.run(machine, {"n": 21}, run_id="demo-1"))

    assert (result.state, result.status, result.output, result.error) == ("DONE", "succeeded", {"value": 42}, None)
    assert (result.run_id, result.machine, result.version, result.steps) == ("demo-1", "demo", 1, 2)


def test_the_same_id_is_run_once_and_survives_the_process(demo, actions):
    first = demo(lambda app, machine: app.run(machine, {"n": 21}, run_id="demo-1"))
    second = demo(lambda app, machine: app.run(machine, {"n": 21}, run_id="demo-1"))

    assert (first.is_unchanged, second.is_unchanged, second.output) == (False, True, {"value": 42})
    assert actions.performed == ["demo-1:DOUBLING:1"]


def test_the_same_id_with_another_input_is_refused(demo):
    demo(lambda app, machine: app.run(machine, {"n": 21}, run_id="demo-1"))
    with pytest.raises(InvalidRequestError, match="another input"):
        demo(lambda app, machine: app.run(machine, {"n": 22}, run_id="demo-1"))


@pytest.mark.parametrize("value", [{}, {"n": "x"}, [], None, {"n": 1.5}], ids=repr)
def test_an_input_against_the_schema_is_refused_before_anything_is_recorded(demo, value):
    async def work(app, machine):
        with pytest.raises(InvalidRequestError):
            await app.run(machine, value, run_id="demo-1")
        return await app.runs.get("demo-1")

    assert demo(work) is None


@pytest.mark.parametrize(
    "run_id", ["a~b", "a/b", "", "x" * 401, "..", "a\0b"], ids=["tilde", "slash", "empty", "long", "dots", "nul"]
)
def test_an_id_that_could_clash_or_be_kept_nowhere_is_refused(demo, run_id):
    with pytest.raises(InvalidRequestError):
        demo(lambda app, machine: app.run(machine, {"n": 1}, run_id=run_id))


@pytest.mark.parametrize("named", [{"lease_s": 0}, {"lease_s": "60"}, {"concurrency": 0}, {"lease_s": True}], ids=str)
def test_an_engine_is_not_made_with_what_cannot_be(named):
    with pytest.raises(InvalidRequestError):
        engine.Engine(**named)


def test_a_secret_in_a_definition_is_refused_before_it_is_stored(tmp_path, actions):
    from engine.core.secret import Secrets
    from engine.errors import SecretLeakError
    from engine.store.memory import MemoryStore

    (tmp_path / "demo.yaml").write_text(DEMO.replace("version: 1", "version: 1\ndescription: my-secret-key"))
    store = MemoryStore()

    async def main():
        async with engine.Engine(
            store=store, artifacts=f"folder:{tmp_path}", actions=actions, secrets=Secrets(["my-secret-key"])
        ) as app:
            with pytest.raises(SecretLeakError):
                await app.run(app.load(tmp_path / "demo.yaml"), {"n": 1}, run_id="r")
            return await store.query("definitions")

    assert anyio.run(main) == []


def test_a_run_without_an_id_gets_one_of_its_own(demo):
    async def work(app, machine):
        return await app.run(machine, {"n": 1}), await app.run(machine, {"n": 1})

    one, two = demo(work)

    assert one.run_id != two.run_id


def test_many_runs_at_once_share_one_engine(demo):
    async def work(app, machine):
        results = {}

        async def one(n):
            results[n] = await app.run(machine, {"n": n}, run_id=f"r{n}")

        async with anyio.create_task_group() as tasks:
            for n in range(50):
                tasks.start_soon(one, n)
        return results

    assert {n: result.output["value"] for n, result in demo(work).items()} == {n: 2 * n for n in range(50)}


def test_a_definition_with_an_unknown_action_is_refused(tmp_path):
    (tmp_path / "demo.yaml").write_text(DEMO)

    async def main():
        async with engine.Engine(store="memory:", artifacts=f"folder:{tmp_path}", actions=Registry(own=())) as app:
            app.load(tmp_path / "demo.yaml")

    with pytest.raises(DefinitionError, match="action-unknown"):
        anyio.run(main)


def test_a_plain_function_runs_in_a_thread(tmp_path, demo, actions):
    import threading

    threads = []

    def double(request):
        threads.append(threading.current_thread() is threading.main_thread())
        return engine.Outcome("done", {"value": 1})

    actions._handlers["demo.double"] = actions["demo.double"]._replace(function=double)

    assert demo(lambda app, machine: app.run(machine, {"n": 1})).status == "succeeded"
    assert threads == [False]


def test_an_action_is_registered_once():
    registry = Registry(own=())

    @registry.action("demo.x", kind="repeatable")
    def one(request): ...

    with pytest.raises(InvalidRequestError, match="registered twice"):

        @registry.action("demo.x", kind="repeatable")
        def two(request): ...


@pytest.mark.parametrize(
    "declared",
    [{"kind": "sometimes"}, {"kind": "transactional"}, {"kind": "repeatable", "documents": lambda request: []},
     {"kind": "repeatable", "outcomes": ()}, {"kind": "repeatable", "outcomes": "done"}, {"kind": "unrepeatable", "outcomes": ("interrupted",)}],
    ids=["kind", "no documents", "documents", "no outcome", "outcomes no tuple", "interrupted"],
)  # fmt: skip
def test_a_declaration_that_contradicts_itself_is_refused(declared):
    with pytest.raises(InvalidRequestError):
        Registry(own=()).action("demo.x", **declared)(lambda request: None)
