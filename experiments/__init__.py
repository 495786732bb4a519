"""Experiments: learning runs, benchmarks and plots, with a log of what they showed."""

import signal
import sys

if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a command that imports ends without a traceback
