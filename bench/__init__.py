"""Benches: one question each, against peers and the physical limit in the same run. `fundops bench` runs them."""

# In the order they are run; each is a module here with `run(scale) -> Result`.
BENCHES = ("messaging", "supervision", "ledger", "growth")
