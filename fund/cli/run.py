"""Runs a command of the table: a question from the file or by the fund, a change by the fund.

A question that the database answers is read from the file, whether the fund runs or not. The other
questions are put to the running fund. A change goes to the running fund; a change of the books is
made here when none runs, under the owner's lock. A change leaves an audit row in both cases.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fundops.cli.given import arguments_of
from fundops.cli.grammar import Verb

if TYPE_CHECKING:
    from fundops.reader import FundReader

__all__ = ["answer_of", "author", "database", "existing", "opened", "run", "with_labels"]


def database(db: Path | None) -> Path:
    """The database's path as given: the shell expands `~`, the system follows links."""
    if db is not None:
        return db
    # As `fundops.config.home`, which would load every setting.
    return Path(os.environ.get("FUNDOPS_HOME") or Path.home() / ".fundops") / "fund.db"


def existing(path: Path) -> Path:
    """The path of a database that is there. Raises: `DatabaseError`."""
    if not path.exists():
        from fundops.wire.errors import DatabaseError

        made = f"`fundops ledger begin CAPITAL --db {path}` makes one"
        raise DatabaseError(path, f"there is no such database; {made}")
    return path


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
        if schema > SCHEMA:
            problem = f"schema {schema}, this one knows {SCHEMA}"
            raise DatabaseError(path, f"was written by a newer fundops ({problem})")
        try:
            yield reader
        except apsw.Error as error:
            old = f"; it has schema {schema}: `fundops migrate --db {path}` brings it up to date"
            problem = f"cannot be read: {error}{old if schema < SCHEMA else ''}"
            raise DatabaseError(path, problem) from error


def author(by: str | None) -> str:
    """The name for the audit table: the one that was given, or the user's."""
    if by is not None:
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
    path = existing(database(given.pop("--db", None)))
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
        if not verb.reads:
            from fundops.control.standalone import run_command

            return run_command(path, verb.command, arguments, by)
        if verb.reader and not verb.live:
            return _stored(verb, path, arguments)
        from fundops.control.client import call
        from fundops.errors import NobodyListens

        try:
            return call(path, verb.command, arguments)
        except NobodyListens:
            if not verb.reader:
                raise
            return _stored(verb, path, arguments)


def _stored(verb: Verb, path: Path, arguments: Mapping[str, Any]) -> Any:
    from fundops.control.arguments import bound, plain

    with opened(path) as reader:
        method = getattr(reader, verb.reader)
        return plain(method(**bound(method, arguments)))


class with_labels:
    """A block in which an error names an argument as it was typed, and not as Python has it."""

    def __init__(self, verb: Verb) -> None:
        self._labels = {parameter.name: parameter.label for parameter in verb.parameters}

    def __enter__(self) -> None:
        return

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        field = getattr(error, "field", None)
        label = self._labels.get(field) if isinstance(field, str) else None
        if error is not None and label is not None and str(error).startswith(f"{field}: "):
            error.args = (f"{label}: {str(error).removeprefix(f'{field}: ')}", *error.args[1:])
