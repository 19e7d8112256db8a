"""The messages of every subsystem as frozen, typed msgspec Structs, and the status stream."""
