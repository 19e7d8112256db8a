"""A fund's database as a file: its schema, its identity, its one owner, and files made from a backup or an export."""
