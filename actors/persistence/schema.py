"""The mark: one number that every transaction raises by one.

When COMMIT raises, the error does not tell whether the transaction is on disk. The mark does, for
any kind of transaction: after the file is opened again it holds the new number or still the old
one. It costs one page of the log per commit. SQLite's own counters do not serve: in WAL mode the
change counter in the file's header stands still, and `data_version` is valid within one connection
only.
"""

from __future__ import annotations

__all__ = ["READ_MARK", "SCHEMA", "SET_MARK"]

SCHEMA = """
CREATE TABLE commit_mark (id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER NOT NULL) STRICT;
INSERT INTO commit_mark VALUES (1, 0);
"""

READ_MARK = "SELECT number FROM commit_mark"
SET_MARK = "UPDATE commit_mark SET number = ?"
