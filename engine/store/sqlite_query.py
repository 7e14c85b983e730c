"""Queries in SQL: a superset of the answer in the right order, which Python then sifts by `port.matches`.

In: the port's query. Out: rows, each decoded once. The SQL narrows (with the indexes of `sqlite_file.py`), and the
specification decides: SQL cannot tell true from 1 or a map from its text, and rounds integers beyond 64 bits.

A field whose name would need escapes in a JSON path, or a value that SQL cannot hold, is left to Python. So is a
collection in which SQL met a text that is no JSON: it gives up there, and one such document must not hide the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import apsw

from engine.core.write import Document, Key
from engine.store.port import UNREADABLE, Found, Order, Where, document_of, matches, select
from engine.store.sqlite_file import Facets, field_expression, has_field, is_plain, quoted

_INTEGER_MAX: Final = 2**63 - 1

_WIDENED: Final = {"==": "=", "<": "<=", "<=": "<=", ">": ">=", ">=": ">="}
"""Strict comparisons take their bound too: beyond 64 bits two unlike integers may round to it."""


def run_query(
    connection: apsw.Connection,
    collection: str,
    where: Sequence[Where],
    order_by: Sequence[Order],
    limit: int | None,
    facets: Facets,
) -> list[Found]:
    """The answer of `Store.query`; `facets` are the file's. Raises `apsw.Error`."""
    in_sql = all(is_plain(order.field) for order in order_by)
    statements = query_statements(collection, where, order_by if in_sql else (), facets.get(collection, ()))
    cursor = connection.cursor()
    try:
        rows = (
            Found(Key(collection, id_), _document_of(body))
            for sql, values in statements
            for id_, body in cursor.execute(sql, values)
        )
        return list(_first(rows, where, limit)) if in_sql else select(rows, where, order_by, limit)
    except (apsw.SQLError, UnicodeDecodeError):
        return _looked_through(connection, collection, where, order_by, limit)
    finally:
        cursor.close()  # a cursor that is left half read would hold the log's pages back


def _looked_through(
    connection: apsw.Connection, collection: str, where: Sequence[Where], order_by: Sequence[Order], limit: int | None
) -> list[Found]:
    """The answer without SQL's JSON. A document that cannot be read is found by its facets, as an index finds it."""
    found: list[Found] = []
    unreadable: set[Key] = set()
    sql = "SELECT id, CAST(body AS BLOB), facets FROM document WHERE collection = ?"
    for id_, body, facets in connection.execute(sql, (collection,)):
        key, document = Key(collection, id_), _document_of(body)
        if document is UNREADABLE:
            unreadable.add(key)
            document = _document_of(facets or "{}")
        found.append(Found(key, document))
    answer = select(found, where, order_by, limit)
    return [Found(key, UNREADABLE if key in unreadable else document) for key, document in answer]


def _document_of(text: Any) -> Document:
    try:
        return document_of(text)
    except ValueError:
        return UNREADABLE


def query_statements(
    collection: str, where: Sequence[Where], order_by: Sequence[Order], facets: Sequence[str] = ()
) -> list[tuple[str, list[Any]]]:
    """SQL texts with their values, whose rows one after the other are the answer.

    The collection is a literal, so that SQLite sees which indexes serve it. An order takes two statements, because
    to an index, as to SQL, a null and a missing field are one: first the documents with null, then the others.
    """
    terms = [f"collection = {quoted(collection)}"]
    values: list[Any] = []
    for condition in where:
        if is_plain(condition.field) and _fits(condition.value):
            expression = field_expression(condition.field, is_facet=condition.field in facets)
            terms.append(f"{expression} {_WIDENED[condition.operator]} ?")
            values.append(condition.value)
            terms.extend(_same_kind(expression, condition))
    if not order_by:
        return [(_sql(terms, (), facets), values)]
    first, *later = order_by
    terms.extend(has_field(order.field, is_facet=order.field in facets) for order in later)
    expression = field_expression(first.field, is_facet=first.field in facets)
    valued = _sql([*terms, f"{expression} >= -9e999"], order_by, facets)  # an index serves this, and not IS NOT NULL
    has_first = has_field(first.field, is_facet=first.field in facets)
    null = _sql([*terms, f"{expression} IS NULL", has_first], later, facets)
    if any(condition.field == first.field for condition in where):
        return [(valued, values)]
    return [(valued, values), (null, values)] if first.descending else [(null, values), (valued, values)]


def _sql(terms: Sequence[str], order_by: Sequence[Order], facets: Sequence[str]) -> str:
    ordering = [
        field_expression(order.field, is_facet=order.field in facets) + (" DESC" if order.descending else "")
        for order in order_by
    ]
    return f"SELECT id, body FROM document WHERE {' AND '.join(terms)} ORDER BY {', '.join([*ordering, 'id'])}"  # noqa: S608 - every part is quoted


def _same_kind(expression: str, condition: Where) -> list[str]:
    """Keeps a range inside the kind of its bound: SQL puts every number before every text."""
    if condition.operator == "==":
        return []
    if isinstance(condition.value, str):
        return [f"{expression} >= ''"] if condition.operator in ("<", "<=") else []
    return [f"{expression} < ''"] if condition.operator in (">", ">=") else []


def _fits(value: object) -> bool:
    return not isinstance(value, int) or -_INTEGER_MAX <= value <= _INTEGER_MAX


def _first(rows: Iterator[Found], where: Sequence[Where], limit: int | None) -> Iterator[Found]:
    if limit is not None and limit <= 0:
        return
    count = 0
    for entry in rows:
        if entry.document is UNREADABLE or matches(entry.document, where):
            yield entry
            count += 1
            if count == limit:
                return
