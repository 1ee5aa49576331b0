"""Becomes another program inside a network namespace.  Arguments: namespace, program, its arguments."""

from __future__ import annotations

import os
import sys

os.execvp("ip", ["ip", "netns", "exec", sys.argv[1], sys.executable, "-u", *sys.argv[2:]])
