"""What holds for every test."""

from __future__ import annotations

import signal

from hypothesis import settings

# How long an example takes says more about the machine, and who else uses it, than about the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

# Under nohup, or in the background of a script, some signals are ignored, by all children too: what
# is to end by Ctrl-C or with its terminal would go on. A terminal's own tests begin without that.
for name in ("SIGINT", "SIGHUP"):
    signum = getattr(signal, name, None)
    if signum is not None and signal.getsignal(signum) == signal.SIG_IGN:
        is_ctrl_c = signum == signal.SIGINT
        signal.signal(signum, signal.default_int_handler if is_ctrl_c else signal.SIG_DFL)
