"""What all tests share."""

from __future__ import annotations

import signal

# A shell that runs us in the background has SIGINT ignored, and every process we start would inherit that: no test of
# an interrupt could pass.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
