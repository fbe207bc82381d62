"""The one lock of the tables that all threads share: avals, forms, fragments, plans, inline caches, logs, counters.

They are filled at first sights only, so one lock is enough, and its holders cannot wait for one another. A fork takes
it too: the child finds whole tables and a free lock, whatever other threads were doing.
"""

from __future__ import annotations

import os
import threading

TABLES = threading.RLock()     # a shape rule may raise, or ask for another form

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=TABLES.acquire, after_in_parent=TABLES.release, after_in_child=TABLES.release)
