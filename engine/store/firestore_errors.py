"""What Firestore's refusals and outages mean for the port.

In: an exception of the client library. Out: one of `engine/errors.py`, which says which project and database, what
the matter is and what to do. No message holds a document's content.

A commit that was refused is known not to be applied, because no request is ever sent twice: neither the client
library nor the transport may retry. Of any other error a commit's fate is unknown.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from google.api_core import exceptions as api
from google.auth import exceptions as auth

from engine.errors import (
    CommitUncertainError,
    ConfigurationError,
    DetentError,
    InvalidRequestError,
    StoreUnavailableError,
)

VARIABLE: Final = "DETENT_STORE"

CONFLICTS: Final = (api.FailedPrecondition, api.Conflict, api.NotFound)
"""Answers to a commit whose documents have changed since they were read (`Aborted` is a `Conflict`)."""

MOMENTARY: Final = (api.ServiceUnavailable, api.InternalServerError, api.Aborted)
"""Answers to a read after which the same read is worth making again at once."""

_INDEXES: Final = "deploy/firestore.indexes.json"


class Place(NamedTuple):
    """The database that a store works on; `emulator` is its address, empty for Google Cloud."""

    project: str
    database: str
    emulator: str = ""

    def __str__(self) -> str:
        where = f" (emulator at {self.emulator})" if self.emulator else ""
        return f"the database {self.database} of the project {self.project}{where}"


def refused_reading(place: Place, error: Exception) -> DetentError:
    """What a failed read or query is to the caller of the port."""
    found = _refused(place, error)
    if found is not None:
        return found
    if isinstance(error, api.InvalidArgument):
        return InvalidRequestError(f"Firestore cannot take the request: {_said(error)}")
    return away(place, error)


def refused_commit(place: Place, error: Exception) -> DetentError:
    """What a failed commit is to the caller of the port, when it was no conflict."""
    found = _refused(place, error)
    if found is not None:
        return found
    if isinstance(error, (api.InvalidArgument, api.OutOfRange)):
        return InvalidRequestError(
            f"Firestore cannot hold what was to be written: {_said(error)}",
            remedy="Keep large values outside: return them as a Blob.",
        )
    return CommitUncertainError(
        f"{place} did not say whether a commit was applied ({type(error).__name__}).",
        remedy="It is settled by reading the documents again.",
    )


def away(place: Place, error: BaseException) -> StoreUnavailableError:
    """Nobody answered, or not in time."""
    remedy = (
        "Start the emulator, or unset FIRESTORE_EMULATOR_HOST." if place.emulator else "Trying again later is right."
    )
    return StoreUnavailableError(f"{place} cannot be reached now ({type(error).__name__}).", remedy=remedy)


def misconfigured(place: Place, error: DetentError) -> ConfigurationError:
    """What was found when a store was opened, as a mistake of its URL or of the rights that it needs."""
    return ConfigurationError(VARIABLE, error.message, remedy=error.remedy)


def no_credentials(place: Place, error: auth.GoogleAuthError) -> ConfigurationError:
    """Nobody said as whom to call Google Cloud."""
    return ConfigurationError(
        VARIABLE,
        f"there are no credentials for {place} ({type(error).__name__}).",
        remedy="Run `gcloud auth application-default login`, set GOOGLE_APPLICATION_CREDENTIALS, "
        "or set FIRESTORE_EMULATOR_HOST for an emulator.",
    )


class RefusedError(StoreUnavailableError):
    """The database is not there or this caller may not use it: trying again helps when somebody has mended that."""


def _refused(place: Place, error: Exception) -> StoreUnavailableError | None:
    """The answers of which it is sure that nothing was read or written, whatever was asked."""
    said = _said(error)
    if isinstance(error, api.Forbidden) and ("has not been used" in said or "is disabled" in said):
        return RefusedError(
            f"the Firestore API is not enabled in the project {place.project}.",
            remedy=f"gcloud services enable firestore.googleapis.com --project {place.project}",
        )
    if isinstance(error, (api.Forbidden, api.Unauthorized)):
        return RefusedError(
            f"this account may not use {place}.",
            remedy="Give it the role roles/datastore.user in that project, or use other credentials.",
        )
    if isinstance(error, api.NotFound):
        return RefusedError(
            f"{place} does not exist.",
            remedy=f"gcloud firestore databases create --project {place.project} --database '{place.database}' "
            "--location REGION, or name another one: firestore://PROJECT/DATABASE.",
        )
    if isinstance(error, api.FailedPrecondition) and "index" in said:
        return StoreUnavailableError(
            f"a query of {place} has no index: {said}",
            remedy=f"Deploy {_INDEXES} (firebase deploy --only firestore:indexes), and wait until they are built.",
        )
    if isinstance(error, api.FailedPrecondition):
        return RefusedError(f"{place} refused: {said}", remedy="detent needs a database in Native mode.")
    if isinstance(error, auth.GoogleAuthError):
        return RefusedError(
            f"the credentials for {place} were not accepted ({type(error).__name__}).",
            remedy="Renew them: `gcloud auth application-default login`, or look at the service account's key.",
        )
    if isinstance(error, api.TooManyRequests):
        return StoreUnavailableError(
            f"{place} has no quota left: {said}", remedy="Wait, or raise the quota in the console."
        )
    return None


def _said(error: Exception) -> str:
    message = getattr(error, "message", "")
    return str(message)[:500]
