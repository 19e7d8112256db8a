"""Benches, one question each, compared with peers and the physical limit in the same run.

`fundops bench` runs them.
"""

# In the order in which they run. Each is a module here with `run(scale) -> Result`.
BENCHES = (
    "messaging",
    "supervision",
    "ledger",
    "growth",
    "embedding",
    "stream",
    "promotion",
    "transitions",
    "luck",
    "oversight",
    "kill_latency",
)
