"""Every bound in one place, each with its unit and its reason. Tested at n-1, n and n+1."""

from __future__ import annotations

from typing import Final

MICROSTEPS_MAX: Final = 100
"""States passed in one step without waiting. A longer chain of `always` is a loop."""

VISITS_MAX: Final = 10_000
"""Visits of one state in one run, where the definition sets no `max_visits`."""

ATTEMPTS_MAX: Final = 100
"""Attempts that a `retry` may ask for; more is a mistake in the definition."""

DELAY_S_MAX: Final = 366 * 24 * 3600
"""Longest delay, timer or backoff: a year."""

ACTION_S_ASSUMED: Final = 60
"""Seconds that an action without a `timeout` is taken to need, where a worker's time is limited: it is begun only when
that much is left. Most HTTP clients and load balancers give up about then."""

CONTEXT_BYTES_MAX: Final = 4 * 1024 * 1024
"""Canonical snapshot in bytes. What one document cannot hold lies in parts beside it; a commit of Firestore takes
10 MiB, and holds the snapshot and the event that led to it."""

EVENT_BYTES_MAX: Final = 4 * 1024 * 1024
"""Canonical event in bytes, such as what has become of ten thousand items. In parts as a snapshot is."""

MAP_INPUTS_BYTES_MAX: Final = 4 * 1024 * 1024
"""Keys and inputs of all items of one map, as canonical JSON in bytes: the entering commit writes them."""

DOCUMENT_BYTES_MAX: Final = 1024 * 1024
"""One document, on every store: Firestore's limit, so that what runs on a laptop runs there."""

JOURNAL_ENTRIES_MAX: Final = 25_000
"""Steps of one run. A run that needs more is a loop that no other bound caught."""

MAP_ITEMS_MAX: Final = 10_000
"""Items of one map."""

MAP_CONCURRENCY_MAX: Final = 1_000
"""Lanes of one map: each is a document that the entering commit writes."""

KEY_CHARS_MAX: Final = 1024
"""Characters of a run's or an item's key: it stands in the head beside the snapshot."""

INBOX_MAX: Final = 100
"""Signals that wait in one run's inbox: each stands in the head. A cancel always finds room,
and so does a signal for which the run waits when it waits for none of these."""

SIGNAL_BYTES_MAX: Final = 256 * 1024
"""Canonical value of one signal in bytes: it becomes a document and a journal entry, and mostly part of a context."""

REASON_CHARS_MAX: Final = 1000
"""Characters of the reason of a cancel: it stands in the head until it is taken."""

CONCURRENCY_MAX: Final = 1000
"""Runs that one worker drives at once."""

DEFAULT_CONCURRENCY: Final = 20
"""Runs that one worker drives at once where nobody says otherwise: as many calls as most APIs allow at a time."""

DEFAULT_LEASE_S: Final = 60.0
"""Seconds of a claim where nobody says otherwise: what a crash delays a run by, against how often it is renewed."""

SKEW_MARGIN_S_MAX: Final = 5.0
"""The part of a lease in which no effect is started, in seconds: covers clocks that differ (LEASES.md)."""

DEFAULT_GRACE_S: Final = 10.0
"""Seconds that a worker which was told to stop takes to finish where nobody says otherwise: what Cloud Run gives."""

LEASE_S_MAX: Final = 3600
"""Seconds of a claim: what a worker that died holds is nobody's for as long."""

GRACE_S_MAX: Final = 3600
"""Seconds that a worker which was told to stop may take to finish: as long as the longest lease."""

JSON_DEPTH_MAX: Final = 100
"""Levels of lists and maps in one value; encoders and CEL recurse, and deep enough data would end the process."""

INTEGER_BITS_MAX: Final = 63
"""Bits of an integer beside its sign: what CEL and every store hold. A larger one in a context would fail each
expression that names it, also the ones that clean up."""

DEFINITION_BYTES_MAX: Final = 512 * 1024
"""Text of one definition: it is stored as a document."""

DEFINITION_DEPTH_MAX: Final = 100
"""Levels of one definition's text; the C parser recurses, and a hundred thousand brackets would end the process."""

CHILD_DEPTH_MAX: Final = 20
"""Machines that map machines that map machines: deeper is a mistake, and the compiler recurses."""

DEFINITION_NODES_MAX: Final = 50_000
"""YAML nodes of one definition after aliases are expanded: stops an alias bomb."""

BLOB_BYTES_MAX: Final = 64 * 1024 * 1024
"""One blob: it is held in memory once."""
