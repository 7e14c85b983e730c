"""The action `chart_img.capture`: one chart from Chart-IMG, or from what was recorded of it.

In: an account's id, the finished request body, and what it is for. Out: `captured` with the picture as a
`Blob`, or a `Failure` with one of the contract's codes. Three modes: `real` calls; `mock` never opens a
socket and answers from fixtures, else from the cassette; `record` calls and keeps what came.
Every call is paid for: it is made once, and a picture that came is never thrown away because something
after it failed. A key is read here, goes into one header, and appears nowhere else; the payload is never
logged. Neither httpx nor vcr is imported before it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel
import anyio.to_thread

from engine.core.action import Failure, Outcome
from engine.core.handler import ActionRequest, Log
from engine.core.secret import Secrets
from engine.errors import ConfigurationError, SecretLeakError
from engine.handlers.accounts import AccountPools
from engine.handlers.chart_img_answer import FAILED, LIMIT_EXCEEDED, MOCK_MISSING, Answer, Lost, classify
from engine.handlers.chart_img_message import Redact, redactor
from engine.handlers.chart_img_recording import Recording
from engine.handlers.chart_img_shot import PICTURE_BYTES_MAX, TIMEOUT_S, Shot, shot_of
from engine.handlers.registry import action

if TYPE_CHECKING:
    import httpx

MODES: Final = ("real", "mock", "record")
PATH: Final = "/v2/tradingview/advanced-chart"

PICTURE_BYTES_LARGE: Final = 256 * 1024
"""The consumer of the manifest takes pictures up to this size; a larger one is kept, with a warning."""


@dataclass(frozen=True, slots=True)
class ChartImgSettings:
    """How charts are captured. Raises `ConfigurationError` naming the variable of what is wrong.

    `mode` is one of `MODES`. `timeout_s` and `picture_bytes_max` are the defaults of the parameters of the same names.
    """

    mode: str
    base_url: str = "https://api.chart-img.com"
    fixtures_dir: Path = Path("fixtures/chart_img")
    cassette: Path = Path("cassettes/chart_img.yaml")
    timeout_s: float = TIMEOUT_S
    picture_bytes_max: int = PICTURE_BYTES_MAX

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigurationError("CHARTS_API_MODE", f"must be one of {', '.join(MODES)}.")
        problem = _url_problem(self.base_url)
        if problem:
            raise ConfigurationError("CHART_IMG_BASE_URL", problem, remedy="Example: https://api.chart-img.com.")

    @property
    def url(self) -> str:
        """Where a chart is asked for."""
        return self.base_url.rstrip("/") + PATH


class ChartImg:
    """The connection to Chart-IMG that an engine is made with: `Engine(services=[ChartImg(…)])`.

    One HTTP client is made on the first call and used by all; `aclose()` ends it (another call makes a new
    one). `transport` replaces the network in tests. `now` is asked only to read a `Retry-After` date.
    """

    def __init__(
        self,
        settings: ChartImgSettings,
        accounts: AccountPools,
        secrets: Secrets,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._accounts = accounts
        self._secrets = secrets
        self._transport = transport
        self._now = now
        self._recording = Recording(settings.fixtures_dir, settings.cassette, settings.url)
        self._client: httpx.AsyncClient | None = None
        self._client_loop: object = None

    @property
    def settings(self) -> ChartImgSettings:
        """What it was made with."""
        return self._settings

    def check(self) -> None:
        """Find out before anything is claimed or spent what would stop a recording or a replay.

        Raises `ConfigurationError`.
        """
        if self._settings.mode == "record":
            self._recording.check()
        elif self._settings.mode == "mock":
            self._recording.check_places()

    def warm(self) -> None:
        """Load the HTTP client before the first unit is reserved: a call that starts late spoils the account's rate."""
        if self._settings.mode != "mock":
            self._current_client()

    async def aclose(self) -> None:
        """Close the client, if there is one."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def capture(self, shot: Shot, log: Log) -> Outcome | Failure:
        """One chart. The parameters of the action are in `shot`; see `engine.handlers.chart_img_shot`."""
        subject = {"chartTemplateId": shot.template_id, "chartImgSymbol": shot.symbol}
        api: dict[str, Any] = {"accountId": shot.account, "mode": self._settings.mode}
        log("chart_api_call_start", **subject, chartsApi=dict(api))
        began = anyio.current_time()
        try:
            result = await self._captured(shot, log)
        except ConfigurationError as error:
            result = Failure(FAILED, str(error), shot.subject.details(reason="configuration"))
        except SecretLeakError:
            result = Failure(
                FAILED, "The chart was refused: it holds a secret value", shot.subject.details(reason="secret")
            )
        is_ok = isinstance(result, Outcome)
        api |= {
            "httpStatus": result.value["http_status"]
            if isinstance(result, Outcome)
            else (result.details or {}).get("httpStatus"),
            "durationMs": round((anyio.current_time() - began) * 1000),
            "chartTemplateId": shot.template_id,
            "fixtureKey": shot.stem,
        }
        code = None if isinstance(result, Outcome) else result.code
        log(
            "chart_api_call_finished",
            "INFO" if is_ok else "WARNING",
            **subject,
            ok=is_ok,
            errorCode=code,
            chartsApi=api,
        )
        return result

    async def _captured(self, shot: Shot, log: Log) -> Outcome | Failure:
        # A key in the request would come back in the picture, and go into file names and recordings.
        self._secrets.refuse(shot.body.decode(), sink="a Chart-IMG request")
        self._secrets.refuse(f"{shot.symbol} {shot.timeframe} {shot.template_id}", sink="a Chart-IMG request")
        if self._settings.mode == "mock":
            result = await self._replayed(shot, log)
        else:
            result = await self._called(shot, log)
        return result if isinstance(result, Failure) else self._checked(result, shot, log)

    def _checked(self, result: Outcome, shot: Shot, log: Log) -> Outcome:
        """The picture with what else the definition may use. Raises `SecretLeakError`."""
        content: bytes = result.value["picture"].content
        _refuse_picture(self._secrets, content)
        if len(content) > PICTURE_BYTES_LARGE:
            subject = {"chartTemplateId": shot.template_id, "chartImgSymbol": shot.symbol}
            log("chart_api_picture_large", "WARNING", **subject, sizeBytes=len(content), limitBytes=PICTURE_BYTES_LARGE)
        more = {"account_id": shot.account, "mode": self._settings.mode, "fixture_key": shot.stem}
        return Outcome(result.name, {**result.value, **more})

    async def _replayed(self, shot: Shot, log: Log) -> Outcome | Failure:
        redact = redactor(self._secrets)
        found = await anyio.to_thread.run_sync(self._recording.find, shot)
        if found is None:
            details = shot.subject.details(fixtureStem=shot.stem, fixturesDir=str(self._settings.fixtures_dir))
            log("chart_api_mock_missing", "WARNING", **details)
            return Failure(MOCK_MISSING, "Chart-IMG fixture is missing", details)
        if isinstance(found, str):
            return Failure(FAILED, found, shot.subject.details(fixtureStem=shot.stem))
        result = classify(found, shot.subject, redact, self._now())
        # Another attempt would find the same recording.
        return result._replace(retriable=False, retry_after_s=None) if isinstance(result, Failure) else result

    async def _called(self, shot: Shot, log: Log) -> Outcome | Failure:
        try:
            key = self._accounts.key_of(shot.account)
        except LookupError:
            message = "The account is not among the configured ones; no call was made"
            return Failure(FAILED, message, shot.subject.details(reason="account"))
        is_recording = self._settings.mode == "record"
        if is_recording:
            await anyio.to_thread.run_sync(self._recording.check)
        redact = redactor(self._secrets, key)
        answer = await self._post(shot, key)
        result = classify(answer, shot.subject, redact, self._now())
        if is_recording and isinstance(answer, Answer):
            # A paid answer is recorded even if the run is cancelled meanwhile.
            with anyio.CancelScope(shield=True):
                await self._record(shot, answer, result, redact, log)
        return result

    async def _post(self, shot: Shot, key: str) -> Answer | Lost:
        from engine.handlers.chart_img_call import post

        headers = {"x-api-key": key, "content-type": "application/json"}
        return await post(
            self._current_client(),
            self._settings.url,
            headers,
            shot.body,
            timeout_s=shot.timeout_s,
            picture_bytes_max=shot.picture_bytes_max,
        )

    def _current_client(self) -> httpx.AsyncClient:
        """The one client of this event loop. Connections belong to the loop that opened them."""
        from engine.handlers.chart_img_call import new_client

        loop = anyio.lowlevel.current_token()
        if self._client is None or self._client_loop != loop:
            self._client, self._client_loop = new_client(self._settings.base_url, self._transport), loop
        return self._client

    async def _record(self, shot: Shot, answer: Answer, result: Outcome | Failure, redact: Redact, log: Log) -> None:
        if isinstance(result, Outcome):
            _refuse_picture(self._secrets, answer.content)
        try:
            await anyio.to_thread.run_sync(self._recording.keep, shot, answer, result, redact)
        except (OSError, ConfigurationError) as error:
            # The picture is paid for; that it could not be recorded does not undo the capture.
            log("chart_api_record_failed", "ERROR", fixtureKey=shot.stem, error=type(error).__name__)


@action(
    "chart_img.capture",
    kind="unrepeatable",
    outcomes=("captured",),
    errors=(FAILED, LIMIT_EXCEEDED, MOCK_MISSING),
    parameters=("account", "payload", "template_id", "symbol", "timeframe"),
    optional=("timeout_s", "picture_bytes_max"),
)
async def capture(request: ActionRequest) -> Outcome | Failure:
    """Capture one chart: `Outcome("captured", {picture: Blob, http_status, account_id, mode, fixture_key})`."""
    service = request.service(ChartImg)
    shot = shot_of(request.params, request.timeout_s, service.settings.timeout_s, service.settings.picture_bytes_max)
    return shot if isinstance(shot, Failure) else await service.capture(shot, request.log)


def _refuse_picture(secrets: Secrets, content: bytes) -> None:
    if secrets.found_in_bytes(content):
        raise SecretLeakError("a secret value was about to be written to a picture; nothing was written.")


def _url_problem(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_complete = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return "is no valid URL."
    if not is_complete or any(character.isspace() or not character.isprintable() for character in url):
        return "must be an http or https URL with a host."
    if "@" in parts.netloc or parts.query or parts.fragment:
        return "must hold no user, password, query or fragment."
    return ""
