"""Published objects and stored bytes behind one port; see `engine/artifacts/port.py`.

`open_artifacts(url, bucket)` picks the concrete place: `folder:PATH`.
"""

from __future__ import annotations

from engine.artifacts.port import Artifacts
from engine.core.secret import Secrets
from engine.errors import ConfigurationError


def open_artifacts(url: str, bucket: str, secrets: Secrets | None = None) -> Artifacts:
    """Open the artifacts that `url` names. Raises `ConfigurationError` for a URL that names none."""
    scheme, _, path = url.partition(":")
    if scheme == "folder" and path:
        from engine.artifacts.folder import FolderArtifacts

        return FolderArtifacts(path, bucket, secrets=secrets)
    raise ConfigurationError(
        "DETENT_ARTIFACTS", f"there are no artifacts of the kind {scheme!r}.", remedy="Use folder:PATH."
    )
