"""A small paper engine on real daily prices, in virtual time, for the demo, tests and benches."""
