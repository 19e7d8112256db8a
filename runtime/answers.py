"""The check of what handlers answer, made when an actor class is created.

It compares the annotated return type of a handler with the answer that its request declares, and
runs nothing. It refuses an answer only when it is certainly of another type. An annotation passes
when it is missing, names a type that does not exist yet, or uses a type variable or a Protocol. A
type checker does the exact work where there is one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Never, NoReturn, Union, get_args, get_origin, get_type_hints

from .errors import ConfigError, Rejected, WrongMessage
from .message import Request

__all__ = ["check_answer"]

# The pairs that type checkers accept although neither class inherits from the other (PEP 484).
NUMBERS = {(int, float), (int, complex), (float, complex)}
# Classes that only hand their items out, so that items may be compared one by one.
CONTAINERS = (tuple, list, dict, set, frozenset)


def check_answer(
    function: Callable[..., Any], message_types: Sequence[type], *, batch: bool
) -> None:
    """Compare the annotated return type of a handler with the answers its requests declare.

    A batch handler returns one answer for each message. A refusal is always allowed. A handler of
    several types has to have an answer for each of them.

    Raises: `ConfigError` when the answer cannot be that of its requests.
    """
    # A decorator may change the answer and still show the annotation of the function it wraps.
    if hasattr(function, "__wrapped__"):
        return
    answer = _returned(function)
    if batch:
        answer = _item_of(function, answer)
    parts = [part for part in _parts(answer) if not _is_refusal(part)]
    if not parts:
        return
    wanted = {message_type: _declared_answer(message_type) for message_type in message_types}
    for message_type, declared in wanted.items():
        if not any(_may_be(part, declared) for part in parts):
            raise _mismatch(
                function, answer, f"{message_type.__qualname__} asks for {_text(declared)}"
            )
    for part in parts:
        if not any(_may_be(part, declared) for declared in wanted.values()):
            names = ", ".join(message_type.__qualname__ for message_type in message_types)
            raise _mismatch(function, answer, f"no {_text(part)} is an answer to {names}")


def _mismatch(function: Callable[..., Any], answer: Any, problem: str) -> ConfigError:
    return ConfigError(
        function.__qualname__, f"is annotated to answer {_text(answer)}, but {problem}"
    )


def _returned(function: Callable[..., Any]) -> Any:
    try:
        annotation = getattr(function, "__annotations__", {}).get("return", Any)
    except NameError:  # from Python 3.14 on annotations are evaluated when they are read
        return Any
    return _resolved(annotation, getattr(function, "__globals__", {}))


def _resolved(annotation: Any, namespace: Mapping[str, Any]) -> Any:
    """The type that an annotation names; `Any` when it cannot be told yet."""
    # One annotation alone: that of a parameter may name a class which does not exist yet.
    holder = SimpleNamespace(__annotations__={"answer": annotation})
    try:
        return get_type_hints(holder, globalns=dict(namespace))["answer"]
    except Exception:  # noqa: BLE001  an annotation is any expression; failing to read it refuses nothing
        return Any


def _declared_answer(message_type: type) -> Any:
    """The `R` of a type that inherits from `Request[R]`, directly or not; `Any` for all others."""
    # Not getattr: a class without generic bases would show those of its parent.
    for base in vars(message_type).get("__orig_bases__", message_type.__bases__):
        origin = get_origin(base) or base
        arguments = get_args(base)
        if origin is Request:
            module = sys.modules.get(message_type.__module__)
            return _resolved(arguments[0], vars(module) if module else {}) if arguments else Any
        if isinstance(origin, type) and issubclass(origin, Request):
            return _substituted(_declared_answer(origin), origin, arguments)
    return Any


def _substituted(answer: Any, generic: Any, arguments: tuple[Any, ...]) -> Any:
    """An answer in which the type variables of a generic request have their values."""
    values = dict(zip(getattr(generic, "__parameters__", ()), arguments, strict=False))
    if answer in values:
        return values[answer]
    variables = getattr(answer, "__parameters__", ())
    return (
        answer[tuple(values.get(variable, Any) for variable in variables)] if variables else answer
    )


def _item_of(function: Callable[..., Any], answers: Any) -> Any:
    """One answer of those that a batch handler returns."""
    origin, arguments = get_origin(answers) or answers, get_args(answers)
    if origin is tuple:
        items = [argument for argument in arguments if argument is not ...]
        return Union[tuple(items)] if items else Any  # noqa: UP007  made at run time
    if isinstance(origin, type) and not issubclass(origin, Iterable):
        raise _mismatch(function, answers, "a batch is answered with a list")
    return arguments[0] if len(arguments) == 1 and isinstance(origin, type) else Any


def _parts(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself; empty for a function that never returns."""
    if annotation in (Never, NoReturn):
        return ()
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _is_refusal(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Rejected | WrongMessage)


def _may_be(given: Any, wanted: Any) -> bool:
    """Whether a value annotated `given` may serve as a `wanted`; true in doubt."""
    parts = _parts(wanted)
    if len(parts) > 1:
        return any(_may_be(given, part) for part in parts)
    if len(_parts(given)) > 1:
        return all(_may_be(part, wanted) for part in _parts(given))
    if given == wanted or Any in (given, wanted) or (given, wanted) in NUMBERS:
        return True
    given_class, wanted_class = get_origin(given) or given, get_origin(wanted) or wanted
    if not isinstance(given_class, type) or not isinstance(wanted_class, type):
        return True  # a Literal, a NewType, a type variable
    if getattr(wanted_class, "_is_protocol", False):
        return True
    try:
        if not issubclass(given_class, wanted_class):
            return False
    except TypeError:  # a class that does not support the question, such as a TypedDict
        return True
    if given_class is not wanted_class or given_class not in CONTAINERS:
        return True
    return _items_may_be(get_args(given), get_args(wanted))


def _items_may_be(given: tuple[Any, ...], wanted: tuple[Any, ...]) -> bool:
    if not given or len(given) != len(wanted) or (given[-1] is ...) != (wanted[-1] is ...):
        return True
    return all(_may_be(item, declared) for item, declared in zip(given, wanted, strict=True))


def _text(annotation: Any) -> str:
    if annotation is NoneType:
        return "None"
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__qualname__
    return str(annotation).replace("typing.", "")
