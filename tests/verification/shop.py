"""A user's machine with actions and a world of its own: what docs/verification.md shows."""

from __future__ import annotations

import engine
from engine.artifacts.port import ABSENT, Artifacts
from engine.core.action import Decision, Failure, Outcome
from engine.core.write import Check, Key, Update
from engine.testing.verification import Difference, Problem, World


class Card:
    """The paid service, as handlers ask for it. `post` sends one request: over HTTP in production, a fake one here."""

    def __init__(self, post) -> None:
        self.post = post


def _order(request):
    return [Key.of("orders", request.params["order"])]


@engine.action("shop.take", kind="transactional", outcomes=("taken", "closed"), parameters=("order",), documents=_order)
def take(request, documents, now):
    (key,) = _order(request)
    if documents[key]["status"] != "OPEN":
        return Decision(Outcome("closed"), (Check(key),))
    return Decision(Outcome("taken"), (Update(key, {("status",): "TAKEN"}),))


@engine.action("shop.charge", kind="unrepeatable", outcomes=("charged",), parameters=("order", "account"))
async def charge(request):
    try:
        payment = await request.service(Card).post(request.params["order"], request.params["account"])
    except ConnectionError as error:
        return Failure("CARD_AWAY", str(error), retriable=True)
    return Outcome("charged", {"payment": payment})


@engine.action("shop.receipt", kind="repeatable", parameters=("order", "payment"))
async def receipt(request):
    artifacts = request.service(Artifacts)
    name = f"receipts/{request.params['order']}.txt"
    await artifacts.write(name, request.params["payment"].encode(), content_type="text/plain", expected=ABSENT)
    return Outcome("done", {"uri": artifacts.uri(name)})


@engine.action("shop.close", kind="transactional", parameters=("order", "uri"), documents=_order)
def close(request, documents, now):
    (key,) = _order(request)
    return Decision(Outcome("done"), (Update(key, {("status",): "CLOSED", ("receipt",): request.params["uri"]}),))


@engine.action("shop.drop", kind="transactional", parameters=("order",), documents=_order)
def drop(request, documents, now):
    (key,) = _order(request)
    return Decision(Outcome("done"), (Update(key, {("status",): "DROPPED"}),))


class ShopWorld(World):
    differences = (Difference("documents/card_accounts_*/*", "", "a crash costs units"),)
    redrive_completes = True

    def prepare(self, machine, documents, inputs, items):
        for one in inputs:
            documents[Key("orders", one["order"])] = {"status": "OPEN"}

    def begin(self):
        return []  # the orders that were charged: outlives every process of a schedule

    def services(self, process, secrets, memory):
        async def post(order, account):
            async def answer():
                memory.append(order)
                await process.clock.sleep(1)
                if len(memory) == 1:
                    raise ConnectionError("the card service is away")
                return f"paid for {order}"

            return await process.call(f"charge {order}", answer, pool="card", account=account)

        return [*super().services(process, secrets, memory), Card(post)]

    def judge(self, ending):
        for key, document in ending.documents.items():
            if key.collection == "orders" and document["status"] not in ("CLOSED", "DROPPED"):
                yield Problem("order-left-open", f"the order {key.id} is {document['status']}")

    def before_redrive(self, documents, run_id):
        """A dropped order is opened again, or its run would not be given it."""
        key = Key("orders", documents[Key("runs", run_id)]["key"])
        yield Update(key, {("status",): "OPEN"})
