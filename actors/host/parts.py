"""The parts of a controller: what needs each of them, and how it is called.

A controller is looked at once, when the fund is made: an object that could not be called later is
refused here, with the name of the part.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from ...runtime import ConfigError, shown
from ...wire.controller import (
    CanGiveStatement,
    CanKeepAlive,
    CanListCashEvents,
    CanListFeeds,
    CanListFills,
    CanListSettlements,
    CanPause,
    CanRestart,
    CanSetStage,
    CanStopAll,
    CanStopInEmergency,
)
from ...wire.foreign import fitted

__all__ = ["FEATURES", "METHODS", "Feature", "checked_controller", "lacks", "offers", "signature"]


class Feature(NamedTuple):
    """Something that fundops does only with certain parts of the controller."""

    part: type  # its Protocol
    methods: tuple[str, ...]
    without: str  # the effect of a missing method


FEATURES: Final = (
    Feature(CanRestart, ("restart",), "failed strategies are not restarted"),
    Feature(
        CanPause, ("pause", "resume", "stop"), "no strategy is paused at its limits, nor stopped"
    ),
    Feature(CanStopAll, ("stop_all",), "only fund.report_stopped can confirm the kill switch"),
    Feature(
        CanStopInEmergency,
        ("emergency_stop",),
        "an engine that does not react is stopped by the end of its leases alone",
    ),
    Feature(
        CanKeepAlive, ("keep_alive",), "orders that a dead host leaves resting are not cancelled"
    ),
    Feature(CanSetStage, ("set_stage",), "promotions are not put in force at the engine"),
    Feature(CanListFeeds, ("feeds",), "stale feeds are not noticed"),
    Feature(CanListFills, ("fills",), "fills are not booked automatically"),
    Feature(CanListSettlements, ("settlements",), "settlements are not booked automatically"),
    Feature(CanListCashEvents, ("cash_events",), "cash events are not booked automatically"),
    Feature(CanGiveStatement, ("statement",), "the books are not compared with the broker's"),
)

# The arguments that each method is called with: positional ones, then those by keyword.
METHODS: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "strategies": ((), ()),
    "restart": (("name",), ("attempt_id",)),
    "pause": (("name", "reason"), ()),
    "resume": (("name",), ()),
    "stop": (("name", "reason"), ()),
    "stop_all": (("reason", "action", "strategies"), ()),
    "emergency_stop": ((), ()),
    "keep_alive": (("until_us",), ()),
    "set_stage": (("name", "stage", "capital_cap"), ()),
    "feeds": ((), ()),
    "fills": (("after",), ()),
    "settlements": (("after",), ()),
    "cash_events": (("after",), ()),
    "statement": ((), ()),
}


def offers(controller: object, feature: Feature) -> bool:
    """Whether the controller has all methods that the feature needs."""
    return all(hasattr(controller, method) for method in feature.methods)


def lacks(controller: object, feature: Feature) -> str:
    """The missing methods of a feature as a person reads them; "": none is missing."""
    missing = [method for method in feature.methods if not hasattr(controller, method)]
    return " and ".join(filter(None, (", ".join(missing[:-1]), *missing[-1:])))


def signature(method: str) -> str:
    """How fundops calls this method."""
    positional, by_keyword = METHODS[method]
    return f"{method}({', '.join((*positional, *(f'{name}=...' for name in by_keyword)))})"


def checked_controller(controller: object) -> None:
    """Refuse an object that is no controller, before anything is opened. Raises: `ConfigError`."""
    if inspect.isclass(controller):
        raise ConfigError("controller", f"{controller.__name__} is a class; give an instance of it")
    found = {method: _read(controller, method) for method in METHODS if _has(controller, method)}
    if not found:
        raise ConfigError(
            "controller", f"{shown(controller)} has no part of a controller: {', '.join(METHODS)}"
        )
    for name, method in found.items():
        _check_method(name, method)


def _has(controller: object, name: str) -> bool:
    try:
        return hasattr(controller, name)
    except Exception as error:  # noqa: BLE001  a property of a foreign class may raise anything
        raise ConfigError("controller", f"its {name} cannot be read: {fitted(error)}") from None


def _read(controller: object, name: str) -> Any:
    return getattr(controller, name)


def _check_method(name: str, method: Any) -> None:
    if not callable(method):
        raise ConfigError("controller", f"its {name} is not a method")
    if inspect.isasyncgenfunction(method):
        raise ConfigError("controller", f"its {name} is an async generator; it must return a list")
    if name == "emergency_stop" and inspect.iscoroutinefunction(method):
        raise ConfigError(
            "controller", "its emergency_stop is a coroutine function; it must be a plain one"
        )
    try:
        accepted = inspect.signature(method)
    except (TypeError, ValueError):
        return  # a method written in C may have none that can be read
    _check_signature(name, accepted, method)


def _check_signature(name: str, accepted: inspect.Signature, method: Callable[..., Any]) -> None:
    positional, by_keyword = METHODS[name]
    try:
        accepted.bind(*positional, **dict.fromkeys(by_keyword, ""))
    except TypeError as error:
        raise ConfigError(
            "controller",
            f"its {name}{accepted} cannot be called as {signature(name)}: {error}",
        ) from None
