"""Control flow as rows: a choice between two Programs, a Program run a known number of times or while another holds.

The rows are pure functions of their operands. Their Programs are laid out once and run inside the sweep.
"""

from __future__ import annotations

from jitgrad.transform.control.branches import cond as cond
from jitgrad.transform.control.scans import scan as scan
from jitgrad.transform.control.scans import with_residuals as with_residuals
from jitgrad.transform.control.sharing import shared as shared
from jitgrad.transform.control.whiles import while_loop as while_loop
