"""What is said: the messages of every subsystem as frozen, typed msgspec Structs, and the status-stream protocol."""
