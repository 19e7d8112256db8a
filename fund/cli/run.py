"""Runs a command of the table: a question from the file or by the fund, a change by the fund.

A question that the database answers is read from the file, whether the fund runs or not. The other
questions are put to the running fund. A change goes to the running fund; a change of the books or
of promotion is made here when none runs, under the owner's lock. A change leaves an audit row in
both cases.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fundops.cli.given import arguments_of
from fundops.cli.grammar import UsageError, Verb

if TYPE_CHECKING:
    from fundops.reader import FundReader

__all__ = [
    "answer_of",
    "asked",
    "author",
    "checked",
    "database",
    "existing",
    "opened",
    "quiet",
    "run",
    "with_labels",
]


# A fund that works answers a question in milliseconds; one that is stopped never does.
ANSWER_S: Final = 15.0


def database(db: Path | None) -> Path:
    """The database's path as given: the shell expands `~`, the system follows links."""
    if db is not None:
        if db.is_symlink():
            _check_links(db)
        return db
    # As `fundops.config.home`, which would load every setting.
    return Path(os.environ.get("FUNDOPS_HOME") or Path.home() / ".fundops") / "fund.db"


def _check_links(path: Path) -> None:
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise  # `Path.resolve` would raise a RuntimeError


def existing(path: Path, command: str = "") -> Path:
    """The path of a database that is there. Raises: `DatabaseError` with the way to one in which
    the command works.
    """
    if path.exists() and not path.is_file():
        from fundops.wire.errors import DatabaseError

        raise DatabaseError(path, f"is no file but {'a folder' if path.is_dir() else 'a device'}")
    if not path.exists():
        from fundops.wire.errors import DatabaseError
        from fundops.wire.shell import shell_command

        made = f"`{shell_command('ledger begin CAPITAL --db', str(path))}` makes one"
        if _is_of_promotion(command):
            made = "a fund with promotion makes one, and so does PromotionManager in Python"
        raise DatabaseError(path, f"there is no such database; {made}")
    return path


def checked(path: Path) -> Path:
    """The path of a database that this version can read. Raises: `DatabaseError`."""
    from fundops.actors.persistence import Reader

    with Reader(existing(path)) as reader:
        _check_schema(path, int(reader.row("PRAGMA user_version")[0]))
    return path


def _check_schema(path: Path, schema: int) -> None:
    from fundops.cli.verbs import SCHEMA
    from fundops.wire.errors import DatabaseError

    if schema > SCHEMA:
        problem = f"schema {schema}, this one knows {SCHEMA}"
        raise DatabaseError(path, f"was written by a newer fundops ({problem})")


@contextmanager
def opened(path: Path) -> Iterator[FundReader]:
    """A reader of the database, whose errors all name it.

    Raises: `DatabaseError`, also for a file of a newer version.
    """
    import apsw

    from fundops.cli.verbs import SCHEMA
    from fundops.reader import FundReader
    from fundops.wire.errors import DatabaseError

    with FundReader(existing(path)) as reader:
        schema = reader.schema()
        _check_schema(path, schema)
        try:
            yield reader
        except apsw.Error as error:
            if schema >= SCHEMA:
                raise
            from fundops.wire.shell import shell_command

            migrate = shell_command("migrate --db", str(path))
            way = f"it has schema {schema}: `{migrate}` brings it up to date"
            raise DatabaseError(path, f"cannot be read: {error}; {way}") from error


def quiet() -> None:
    """Keep log records off stderr in a command that tells its outcome itself.

    Without a handler Python prints warnings and the traceback of an actor that did not start.
    """
    import logging

    logging.getLogger("fundops").addHandler(logging.NullHandler())


def author(by: str | None) -> str:
    """The name for the audit table: the one that was given, or the user's.

    Raises: `UsageError` for an empty name.
    """
    if by is not None:
        if not by.strip():
            raise UsageError("--by: is empty; leave it out for the name of the user")
        return by
    import getpass

    try:
        return os.environ.get("USER") or getpass.getuser()
    except (KeyError, OSError):  # the user has no name
        return ""


def run(verb: Verb, values: Mapping[str, Any]) -> int:
    """Run the command, print its answer, and return the exit code."""
    from fundops.cli import show

    given = dict(values)
    path = existing(database(given.pop("--db", None)), verb.command)
    as_json = given.pop("--json", False)
    answer = answer_of(verb, path, given)
    note = show.NOTES.get(verb.command)
    if note is not None:
        show.print_note(note, path, given)
    if as_json:
        return show.print_json(verb.words, answer)
    return show.print_answer(verb, answer, path, given)


def answer_of(verb: Verb, path: Path, given: Mapping[str, Any]) -> Any:
    """The answer as JSON values. `given` has the values by the labels, without those of `run`."""
    values = dict(given)
    by = "" if verb.reads else author(values.pop("--by", None))
    arguments = arguments_of(verb, values)
    if verb.signed:
        arguments["by"] = by
    with with_labels(verb):
        if verb.reader and not verb.live:
            return _stored(verb, path, arguments)
        checked(path)
        if not verb.reads:
            quiet()
            return asked(path, verb.command, arguments, by)
        from fundops.control.client import call
        from fundops.errors import NobodyListens

        try:
            if _is_of_promotion(verb.command):
                _check_is_a_funds(path)
            return call(path, verb.command, arguments, timeout_s=ANSWER_S)
        except NobodyListens:
            if verb.reader:
                return _stored(verb, path, arguments)
            if not _is_of_promotion(verb.command):
                raise
            return asked(path, verb.command, arguments, "")


def asked(path: Path, command: str, arguments: Mapping[str, Any], by: str) -> Any:
    """The answer of a command, by the running fund or, where none runs, from the file itself."""
    if not _is_of_promotion(command):
        from fundops.control.standalone import run_command

        return run_command(path, command, arguments, by)
    from fundops.control.arguments import bound, check_carried, plain
    from fundops.control.commands import COMMANDS
    from fundops.promotion import PromotionFile

    row = COMMANDS[command]
    arguments, by = row.fit(arguments, by)
    check_carried({**arguments, "by": by})
    file = PromotionFile(path, door="standalone", by=by)
    return plain(file.run(row, bound(row.method, arguments)))


def _is_of_promotion(command: str) -> bool:
    return command.startswith("promotion.")


def _check_is_a_funds(path: Path) -> None:
    """The file of a `PromotionManager` alone has no fund. Raises: `NobodyListens`."""
    from fundops.errors import NobodyListens
    from fundops.file import meta

    if "uuid" not in meta.read_file(path):
        raise NobodyListens("the file is no fund's")


def _stored(verb: Verb, path: Path, arguments: Mapping[str, Any]) -> Any:
    from fundops.control.arguments import bound, plain

    with opened(path) as reader:
        method = getattr(reader, verb.reader)
        return plain(method(**bound(method, arguments)))


class with_labels:
    """A block in which an error names an argument as it was typed, and not as Python has it."""

    def __init__(self, verb: Verb) -> None:
        self._labels: dict[str, str] = {}
        for parameter in verb.parameters:
            # The debits and the credits of an entry are two options of one argument.
            before = self._labels.get(parameter.name)
            self._labels[parameter.name] = f"{before or ''}{'/' if before else ''}{parameter.label}"

    def __enter__(self) -> None:
        return

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        field = getattr(error, "field", None)
        # A moment's error has the name of its microseconds.
        names = (field, field.removesuffix("_us")) if isinstance(field, str) else ()
        label = next((self._labels[name] for name in names if name in self._labels), None)
        if error is None:
            return
        text = str(error)
        if label is not None and text.startswith(f"{field}: "):
            text = f"{label}: {text.removeprefix(f'{field}: ')}"
        for name, typed in self._labels.items():
            if "_" in name:  # any other name may be a word of the sentence
                text = re.sub(rf"\b{name}\b", typed, text)
        if text != str(error):
            error.args = (text, *error.args[1:])
