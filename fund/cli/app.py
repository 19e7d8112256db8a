"""The command `fundops` and its exit codes.

Modules are imported when a command needs them, so `--help` is quick.

Exit codes: 0 done, 1 refused, 2 wrong usage or configuration, 3 no fund runs, 4 INCONCLUSIVE (of
`fundops gate`), 130 interrupted, 143 terminated. With `--json` an error is one JSON object, on
stdout and on stderr alike: {"error": {"type", "text", "key", "outcome"}}.
"""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TextIO

from fundops.cli.grammar import UsageError, Verb
from fundops.cli.help import group_help, overview
from fundops.cli.parse import values_of, verb_of

__all__ = ["main"]

REFUSED: Final = 1
USAGE: Final = 2
NOT_RUNNING: Final = 3


def _verbs() -> Sequence[Verb]:
    from fundops.cli.verbs import VERBS

    return VERBS


def _dispatch(words: Sequence[str]) -> int:
    """Run the command that the words name. Raises: `UsageError`; the command's own errors."""
    if words and words[0] == "--version":
        from fundops import __version__

        print(__version__)
        return 0
    verb, group, left = verb_of(words, _verbs())
    if verb is None:
        if left and left[0] not in ("--help", "-h"):
            raise UsageError(f"there is no option {left[0]}; `fundops --help` lists the commands")
        print(group_help(group, _verbs()) if group else overview(_verbs()))
        return 0
    values = values_of(verb, left)
    if not verb.run:
        from fundops.cli.run import run

        return run(verb, values)
    module, _, name = verb.run.partition(":")
    names = {parameter.label: parameter.name for parameter in verb.parameters}
    given = {names[label]: value for label, value in values.items()}
    from fundops.cli.run import with_labels

    with with_labels(verb):
        code: int = getattr(import_module(module), name)(**given)
    return code


# The classes in an except clause are looked up only after an error, so a command that needs no
# trio does not load it.


def _not_running() -> tuple[type[Exception], ...]:
    from fundops.errors import NobodyListens

    return (NobodyListens,)


def _usage_errors() -> tuple[type[Exception], ...]:
    from fundops.replay.prices import PricesError
    from fundops.runtime import ConfigError
    from fundops.wire.errors import AmountError

    # A text of the environment, such as FUNDOPS_HOME, that is not UTF-8.
    return (AmountError, ConfigError, PricesError, UnicodeEncodeError)


def _refusals() -> tuple[type[Exception], ...]:
    from fundops.runtime import FundopsError

    return (FundopsError, OSError)


def _again(error: Exception) -> str:
    """The advice to ask again with the key, for an error whose outcome is unknown."""
    key = getattr(error, "key", None) if getattr(error, "outcome", None) == "unknown" else None
    return (
        f"; ask again with --key {key}"
        if key is not None and f"key {key!r}" not in str(error)
        else ""
    )


def _worded(error: Exception) -> str:
    """The error for a person: a refusal of the system names its file and has no number."""
    if isinstance(error, OSError) and error.strerror:
        problem = error.strerror
        if problem[1:2].islower():
            problem = problem[0].lower() + problem[1:]
        return f"{error.filename}: {problem}" if error.filename else problem
    text = re.sub(r"\[Errno -?\d+\] ", "", str(error))
    path = getattr(error, "path", None)
    if "disk I/O error" in text and isinstance(path, Path) and _is_full(path.parent):
        text += "; its disk is full, and SQLite needs room even to read"
    # Values as they are typed, and not as Python has them: Decimal('-1'), <Stage.Live: 'live'>.
    return re.sub(r"Decimal\(('[^']*')\)|<\w+\.\w+: ('[^']*')>", r"\1\2", text)


def _is_full(folder: Path) -> bool:
    """Whether the disk has less room than the index of a write-ahead log takes."""
    with suppress(OSError):
        room = os.statvfs(folder)
        return room.f_bavail * room.f_frsize < 32 * 1024
    return False


def _failed(error: Exception, code: int, as_json: bool, *, text: str = "") -> int:
    """Tell the error, for a program as JSON too, and return the exit code."""
    from fundops.cli.show import error_json, error_line

    text = text or _worded(error)
    if not as_json:
        _tell(error_line(f"{text}{_again(error)}"))
        return code
    facts: dict[str, Any] = {"type": type(error).__name__, "text": text}
    for fact in ("key", "outcome"):
        facts[fact] = getattr(error, fact, None)
    told = error_json(facts)
    with suppress(OSError):  # the error itself may be that stdout cannot be written
        print(told, flush=True)
    _tell(told)
    return code


def _advised(words: Sequence[str], error: Exception) -> str:
    """The refusal of a command that needs a running fund, with the way to one."""
    verb, _, left = verb_of(words, _verbs())
    from fundops.cli.run import database

    path = database(None)
    if verb is not None:
        path = database(values_of(verb, left).get("--db"))
        return (
            f"no fund runs on {path}, and `fundops {verb.words}` needs one: start its program"
            " (a fund with control_socket=False is not heard)"
        )
    return str(error)


def _with_streams() -> None:
    """Put /dev/null in the place of each standard stream that is closed.

    Otherwise the stream is None and, worse, the next file that is opened takes its number.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")  # a terminal may not have every letter


def _discard(stream: TextIO) -> None:
    """Let the rest of the buffer go: it would fail again at the interpreter's end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _tell(text: str) -> None:
    """Print a line on stderr. A stderr that cannot be written must not change the exit code."""
    with suppress(OSError):
        print(text, file=sys.stderr)


@contextmanager
def _terminated_in_order() -> Iterator[list[int]]:
    """Let SIGTERM end a command as Ctrl-C does: a fund stops, temporary files are removed.

    Yields the list of its arrivals. In a program that handles either signal itself, nothing
    changes.
    """
    arrivals: list[int] = []
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )

    def interrupt(number: int, _frame: Any) -> None:
        arrivals.append(number)
        signal.raise_signal(signal.SIGINT)

    if ours:
        signal.signal(signal.SIGTERM, interrupt)
    try:
        yield arrivals
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _run(words: Sequence[str], terminations: list[int]) -> int:
    as_json = "--json" in words
    try:
        return _dispatch(words)
    except SystemExit:  # argparse has shown the help of a command
        return 0
    except KeyboardInterrupt:
        _tell(f"fundops: {'terminated' if terminations else 'interrupted'}")
        return 128 + (terminations[0] if terminations else signal.SIGINT)
    except BrokenPipeError:
        return 0  # the reader of our output has closed it
    except UsageError as error:
        return _failed(error, USAGE, as_json)
    except _not_running() as error:
        return _failed(error, NOT_RUNNING, as_json, text=_advised(words, error))
    except _usage_errors() as error:
        return _failed(error, USAGE, as_json)
    except _refusals() as error:
        return _failed(error, REFUSED, as_json)


def main() -> None:
    """Run the `fundops` command and exit.

    0 done, 1 refused, 2 wrong usage, 3 no fund runs, 130 interrupted.
    """
    _with_streams()
    with _terminated_in_order() as terminations:
        code = _run(sys.argv[1:], terminations)
    try:
        sys.stdout.flush()
    except OSError as error:
        if not code and not isinstance(error, BrokenPipeError):
            # The command itself is done: a change must not be made again for want of its answer.
            _tell(f"fundops: the command is done, but stdout cannot be written: {_worded(error)}")
            code = REFUSED
        _discard(sys.stdout)
    try:
        sys.stderr.flush()
    except OSError:
        _discard(sys.stderr)
    sys.exit(code)
