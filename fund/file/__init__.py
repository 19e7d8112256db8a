"""A fund's database as a file: its schema, its identity, its owner, and how one is restored."""
