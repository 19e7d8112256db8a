"""The actors: one folder per subsystem, each with its pure core, its schema and its actor."""
