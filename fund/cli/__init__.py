"""The command line. Nothing imports it but `fundops.__main__`."""
