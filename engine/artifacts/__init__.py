"""Published objects and stored bytes behind one port; see `engine/artifacts/port.py`.

`open_artifacts(url, bucket)` picks the concrete place: `folder:PATH`, or `gs:` for a bucket of Cloud Storage.
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
    if url == "gs:":
        try:
            from engine.artifacts.gcs import GcsArtifacts
        except ImportError as error:
            raise ConfigurationError(
                "DETENT_ARTIFACTS",
                f"gs: needs the library of Cloud Storage ({error.name} is missing).",
                remedy='pip install "detent[google]".',
            ) from None
        return GcsArtifacts(bucket, secrets)
    raise ConfigurationError(
        "DETENT_ARTIFACTS", f"there are no artifacts of the kind {scheme!r}.", remedy="Use folder:PATH or gs:."
    )
