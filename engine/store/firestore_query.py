"""Queries as Firestore's, with the port's exact order.

In: the port's query. Out: a `StructuredQuery` message, and what is left to do with its answer. Pure.

Firestore breaks ties in the direction of the last order, and answers a query with a range but no order by the
range's field. The port's order is by id, ascending: for the first it is asked for, the second is sorted here.
Ids and strings go by UTF-8 bytes there, which is the order of code points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from google.cloud.firestore_v1.field_path import FieldPath as ApiPath
from google.cloud.firestore_v1.types import query

from engine.store.firestore_values import bound_of
from engine.store.port import Found, Order, Where, select

_Query: Any = query.StructuredQuery.pb()

_OPERATORS: Final = {"==": 5, "<": 1, "<=": 2, ">": 3, ">=": 4}
"""The numbers of `StructuredQuery.FieldFilter.Operator`."""

_ASCENDING, _DESCENDING = 1, 2
_AND: Final = 1
_NAME: Final = "__name__"


def structured(collection: str, where: Sequence[Where], order_by: Sequence[Order], limit: int | None) -> Any:
    """The `StructuredQuery` message of a query of one collection."""
    asked = _Query()
    asked.from_.add().collection_id = collection
    for condition in where:
        asked.where.composite_filter.op = _AND
        one = asked.where.composite_filter.filters.add().field_filter
        one.field.field_path = _path(condition.field)
        one.op = _OPERATORS[condition.operator]
        one.value.CopyFrom(bound_of(condition.value))
    for order in order_by:
        by = asked.order_by.add()
        by.field.field_path = _path(order.field)
        by.direction = _DESCENDING if order.descending else _ASCENDING
    if order_by and order_by[-1].descending:
        by = asked.order_by.add()
        by.field.field_path = _NAME
        by.direction = _ASCENDING
    if limit is not None and not _is_settled_here(where, order_by):
        asked.limit.value = limit
    return asked


def finished(found: list[Found], where: Sequence[Where], order_by: Sequence[Order], limit: int | None) -> list[Found]:
    """The port's answer from what Firestore has answered."""
    return select(found, where, order_by, limit) if _is_settled_here(where, order_by) else found


def _is_settled_here(where: Sequence[Where], order_by: Sequence[Order]) -> bool:
    """Whether Firestore's answer is not yet the port's: in another order, or to a bound that it cannot hold."""
    ordered = {order.field for order in order_by}
    return any(
        (condition.operator != "==" and condition.field not in ordered) or _is_huge(condition.value)
        for condition in where
    )


def _is_huge(value: object) -> bool:
    return isinstance(value, int) and not -(2**63) <= value < 2**63


def _path(field: str) -> str:
    text: str = ApiPath(field).to_api_repr()
    return text
