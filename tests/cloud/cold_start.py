"""A process of its own: one event through the framework's own application, then what has been imported for it."""

import json
import os
import sys

import functions_framework
from werkzeug.test import Client

BARE = set(sys.modules)

client = Client(functions_framework.create_app("chart_export_event", "main.py"))
headers = {
    "ce-id": "1",
    "ce-source": "//firestore",
    "ce-specversion": "1.0",
    "ce-type": "google.cloud.firestore.document.v1.updated",
    "ce-subject": f"documents/flow_runs/{os.environ['RUN_ID']}",
    "content-type": "application/protobuf",
}
answer = client.post("/", data=b"\x0a\x00", headers=headers)
sys.stdout.write(json.dumps({"status": answer.status_code, "modules": sorted(set(sys.modules) - BARE)}))
