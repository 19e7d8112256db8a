"""The mark: one number that every transaction raises by one.

When COMMIT raises, the error does not tell whether the transaction is on disk. The mark does, for
any kind of transaction: after the file is opened again it holds the new number or still the old
one. It costs one page of the log per commit. SQLite's own counters do not serve: in WAL mode the
change counter in the file's header stands still, and `data_version` is valid within one connection
only.
"""

from __future__ import annotations

__all__ = ["RAISE_MARK", "READ_MARK", "SCHEMA"]

SCHEMA = """
CREATE TABLE commit_mark (id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER NOT NULL) STRICT;
INSERT INTO commit_mark VALUES (1, 0);
"""

READ_MARK = "SELECT number FROM commit_mark"
# Changes no row when another program has written since, or the file is another one.
RAISE_MARK = "UPDATE commit_mark SET number = number + 1 WHERE number = ?"
