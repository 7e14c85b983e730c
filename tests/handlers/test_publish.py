"""The manifest is a function of committed values: who writes it again, writes the same object."""

from __future__ import annotations

import json

from engine.core import canonical
from engine.handlers.publish import build_manifest

STEP = {"run_id": "20260105-080000_BTCUSDT_k3f7a", "step_id": "charts:1d:main_v1", "claimed_at": "2026-01-05T09:30:00Z"}
PLAN = {
    "symbol": "BTCUSDT",
    "timeframe": "1d",
    "min_images": 1,
    "requested": [{"chartTemplateId": "a", "overrides": {"width": 1, "height": 2}}],
}
ITEMS = [
    {"png_gcs_uri": "gs://local/a.png", "kind": "k", "generatedAt": "2026-01-05T09:30:00Z", "chartTemplateId": "a"}
]
FAILURES = [{"request": {"chartTemplateId": "b"}, "error": {"message": "m", "code": "CHART_API_FAILED"}}]


def test_a_manifest_from_a_context_read_back_has_the_bytes_of_the_one_from_memory():
    """A worker that took over reads the context from the store, where names have another order."""
    in_memory = build_manifest(STEP, PLAN, ITEMS, FAILURES)
    read_back = build_manifest(*canonical.decode(canonical.encode([STEP, PLAN, ITEMS, FAILURES])))

    assert json.dumps(in_memory) == json.dumps(read_back)


def test_the_contract_names_come_in_the_order_of_the_contract():
    manifest = build_manifest(STEP, PLAN, ITEMS, FAILURES)

    assert ["schemaVersion", "runId", "stepId", "createdAt"] == list(manifest)[:4]
    assert "failures" == list(manifest)[-1]
