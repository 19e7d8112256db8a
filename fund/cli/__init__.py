"""The command line. Only `fundops.__main__` imports it."""
