"""What the Cloud Storage library raises, said as an `ArtifactError` that tells a person what to do.

In: an exception and the `gs://` address that it is about. Out: `ArtifactUnavailableError` for what another time,
another role or another login mends; `ArtifactError` for what Cloud Storage will refuse again. No text of a server is
taken over without `redact`.
"""

from __future__ import annotations

import http.client
import re
from collections.abc import Callable, Sequence
from typing import Final

from google.api_core.exceptions import (
    Forbidden,
    GoogleAPICallError,
    NotFound,
    RetryError,
    TooManyRequests,
    Unauthorized,
)
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from requests import RequestException
from urllib3.exceptions import HTTPError

from engine.errors import ArtifactError, ArtifactUnavailableError

ANSWERS: Final = (
    GoogleAPICallError,
    RetryError,
    GoogleAuthError,
    InvalidResponse,
    DataCorruption,
    RequestException,
    HTTPError,
    http.client.HTTPException,
    OSError,
)
"""Everything that a call may raise for a reason outside of this program."""

PERMISSIONS: Final = ("storage.objects.create", "storage.objects.delete", "storage.objects.get", "storage.objects.list")
"""What is needed: `delete` to replace the manifest, `list` so that a missing object is a 404 and not a 403."""

_ROLE: Final = "roles/storage.objectUser"
_PERMISSION: Final = re.compile(r"storage\.\w+\.\w+")
_TEXT_MAX: Final = 300
_SERVER_ERRORS: Final = 500


def is_missing_bucket(error: NotFound) -> bool:
    """Whether a 404 is about the bucket and not about an object in it."""
    return "bucket does not exist" in str(error)


def missing_bucket(bucket: str) -> ArtifactUnavailableError:
    """There is no such bucket."""
    return ArtifactUnavailableError(
        f"there is no bucket gs://{bucket}.",
        remedy=f"Make it (gcloud storage buckets create gs://{bucket}), or set ARTIFACTS_BUCKET to one that exists.",
    )


def missing_permissions(bucket: str, permissions: Sequence[str]) -> ArtifactUnavailableError:
    """The caller may not do what it has to."""
    return ArtifactUnavailableError(
        f"this process lacks {', '.join(permissions)} on gs://{bucket}.",
        remedy=f"Grant its service account {_ROLE} on the bucket (gcloud storage buckets add-iam-policy-binding"
        f" gs://{bucket} --member=serviceAccount:… --role={_ROLE}).",
    )


def translated(error: BaseException, uri: str, redact: Callable[[str], str]) -> ArtifactError:
    """The error that the port promises for one that the library raised; `uri` is what the call was about."""
    bucket = uri.removeprefix("gs://").partition("/")[0]
    if isinstance(error, NotFound):
        return missing_bucket(bucket) if is_missing_bucket(error) else ArtifactError(f"there is no object {uri}.")
    if isinstance(error, (Unauthorized, GoogleAuthError)):
        return _no_credentials(error)
    if isinstance(error, Forbidden):
        return _forbidden(error, bucket, redact)
    if isinstance(error, DataCorruption) or "doesn't match calculated" in str(error):
        return ArtifactUnavailableError(f"the bytes of {uri} were damaged on their way.", remedy="Try again.")
    if isinstance(error, GoogleAPICallError) and not _is_passing(error):
        return ArtifactError(
            f"Cloud Storage refuses {uri}: {error.code} {redact(str(error.message))[:_TEXT_MAX]}.",
            remedy="It will refuse it again: change the request.",
        )
    return ArtifactUnavailableError(
        f"Cloud Storage did not do what was asked of it for {uri} in time: {_reason(error)}.",
        remedy="Try again later; what was begun is settled by then.",
    )


def _no_credentials(error: GoogleAPICallError | GoogleAuthError) -> ArtifactUnavailableError:
    if isinstance(error, DefaultCredentialsError):
        problem = "no credentials of Google Cloud were found"
    else:
        problem = "Google Cloud does not accept this process's credentials"
    return ArtifactUnavailableError(
        f"{problem}.",
        remedy="Log in with `gcloud auth application-default login`, or name a key file in"
        " GOOGLE_APPLICATION_CREDENTIALS; on Google Cloud give the function a service account.",
    )


def _forbidden(error: Forbidden, bucket: str, redact: Callable[[str], str]) -> ArtifactUnavailableError:
    found = _PERMISSION.search(str(error.message))
    if found is not None:
        return missing_permissions(bucket, [found.group()])
    return ArtifactUnavailableError(
        f"Cloud Storage does not let this process use gs://{bucket}: {redact(str(error.message))[:_TEXT_MAX]}.",
        remedy=f"See that its service account has {_ROLE} on the bucket, and that billing is on.",
    )


def _is_passing(error: GoogleAPICallError) -> bool:
    """Whether another time may mend it."""
    code = int(error.code or 0)
    return isinstance(error, TooManyRequests) or code >= _SERVER_ERRORS or code in (408, 409, 412)


def _reason(error: BaseException) -> str:
    """What went wrong last, in a few words: the library wraps it, and its texts hold whole addresses."""
    cause = error.cause if isinstance(error, RetryError) and error.cause is not None else error
    if isinstance(cause, GoogleAPICallError):
        return f"it answered {cause.code}"
    response = getattr(cause, "response", None)
    if isinstance(cause, InvalidResponse) and response is not None:
        return f"it answered {response.status_code}"
    return f"the connection failed ({type(cause).__name__})"
