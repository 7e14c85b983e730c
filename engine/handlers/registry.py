"""The registry of actions, and the decorator that fills it.

The project's own modules are imported when an action of theirs is first looked up, so a process that
uses none of them pays for none of them.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

from engine.core.action import INTERRUPTED, ActionDeclaration, ActionKind
from engine.core.handler import DocumentsOf, Handler
from engine.errors import InvalidRequestError

Function = TypeVar("Function", bound=Callable[..., Any])

_OWN: Final = ("flow_steps", "templates", "ledger", "chart_img", "publish")


class Registry(Mapping[str, Handler]):
    """Actions by name."""

    def __init__(self, own: tuple[str, ...] = _OWN) -> None:
        self._handlers: dict[str, Handler] = {}
        self._unloaded = set(own)

    def action(
        self,
        name: str,
        *,
        kind: str,
        outcomes: tuple[str, ...] = ("done",),
        errors: tuple[str, ...] = (),
        parameters: tuple[str, ...] | None = None,
        optional: tuple[str, ...] = (),
        documents: DocumentsOf | None = None,
    ) -> Callable[[Function], Function]:
        """Declare the decorated function as the handler of an action; see `engine.core.handler`.

        `kind` is "transactional", "repeatable" or "unrepeatable". `documents`, for a transactional action
        and only there, answers the keys that its decide reads. Raises `InvalidRequestError` for a
        declaration that contradicts itself or a name that another function has.
        """
        declaration = ActionDeclaration(name, _kind(name, kind), outcomes, errors, parameters, optional)
        if (declaration.kind is ActionKind.TRANSACTIONAL) != (documents is not None):
            raise InvalidRequestError(
                f"the action {name!r}: documents= goes with kind='transactional', and only with it.",
                remedy="Name the documents that its decide reads, or choose another kind.",
            )
        for given in (outcomes, errors, parameters or (), optional):
            if isinstance(given, str) or not all(isinstance(one, str) and one for one in given):
                raise InvalidRequestError(
                    f"the action {name!r}: {given!r} is no tuple of names.", remedy="Mind the comma."
                )
        if INTERRUPTED in outcomes or not outcomes:
            raise InvalidRequestError(
                f"the action {name!r} needs at least one outcome; 'interrupted' is the engine's own."
            )

        def register(function: Function) -> Function:
            if documents is not None and inspect.iscoroutinefunction(function):
                raise InvalidRequestError(f"the decide of {name!r} is pure and plain: it cannot be async.")
            known = self._handlers.get(name)
            if known is not None and not _is_same(known.function, function):
                raise InvalidRequestError(
                    f"the action {name!r} is registered twice: by {known.function.__module__} and "
                    f"{function.__module__}.",
                    remedy="Give one of them another name.",
                )
            self._handlers[name] = Handler(declaration, function, documents)
            return function

        return register

    def declarations(self) -> Mapping[str, ActionDeclaration]:
        """What the compiler needs to know of each action."""
        return _Declarations(self)

    def __getitem__(self, name: str) -> Handler:
        found = self._handlers.get(name)
        if found is None:
            self._load(name.partition(".")[0])
            found = self._handlers[name]
        return found

    def get(self, name: str, default: Any = None) -> Any:
        """As of any mapping; each step asks, and `Mapping`'s own costs ten times as much."""
        found = self._handlers.get(name)
        if found is not None:
            return found
        try:
            return self[name]
        except KeyError:
            return default

    def __iter__(self) -> Iterator[str]:
        for module in tuple(self._unloaded):
            self._load(module)
        return iter(self._handlers)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _load(self, module: str) -> None:
        if module in self._unloaded:
            self._unloaded.discard(module)
            importlib.import_module(f"engine.handlers.{module}")


class _Declarations(Mapping[str, ActionDeclaration]):
    """A view of a registry that shows declarations."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def __getitem__(self, name: str) -> ActionDeclaration:
        return self._registry[name].declaration

    def __iter__(self) -> Iterator[str]:
        return iter(self._registry)

    def __len__(self) -> int:
        return len(self._registry)


def _kind(name: str, kind: str) -> ActionKind:
    try:
        return ActionKind(kind)
    except ValueError:
        known = ", ".join(ActionKind)
        raise InvalidRequestError(f"the action {name!r} has no kind {kind!r}.", remedy=f"Use one of {known}.") from None


def _is_same(known: Callable[..., Any], new: Callable[..., Any]) -> bool:
    """A module that is imported a second time under another name declares its own functions again."""
    return (known.__module__, known.__qualname__) == (new.__module__, new.__qualname__)


ACTIONS: Final = Registry()
"""The registry of this process: what `engine.action` fills and the command line uses."""

action = ACTIONS.action
