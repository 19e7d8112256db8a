"""Replay: a small paper engine on real daily prices, in virtual time, for the demo, the tests and the benches."""
