"""The Cloud Functions of this project, where functions-framework looks for them."""

from engine.entry.cloud_function import chart_export_event, sweep

__all__ = ["chart_export_event", "sweep"]
