"""A cable between two interfaces that delays and loses what goes one way, where a kernel has no `tc netem`.

Arguments: the interfaces' names, milliseconds, share lost. What the first sends is late and some of it lost, as with
netem at its root; what the second sends is neither. Says `ready` when both interfaces exist, and ends with its input.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import select
import struct
import sys
import time
from collections import deque

TUNSETIFF, TAP, NO_INFORMATION = 0x400454CA, 0x0002, 0x1000


def interface(name: str) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH14s", name.encode(), TAP | NO_INFORMATION, b""))
    return descriptor


def main() -> None:
    first, second = interface(sys.argv[1]), interface(sys.argv[2])
    delay_s, lost = float(sys.argv[3]) / 1000, float(sys.argv[4])
    rng, under_way = random.Random(1), deque[tuple[float, bytes]]()
    print("ready", flush=True)
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        readable, _, _ = select.select([first, second, sys.stdin], [], [], wait)
        if sys.stdin in readable:
            return
        for descriptor in readable:
            # While an interface is down there is nothing to be read or written.
            with contextlib.suppress(OSError):
                frame = os.read(descriptor, 65536)
                if descriptor == second:
                    os.write(first, frame)
                elif rng.random() >= lost:
                    under_way.append((time.monotonic() + delay_s, frame))
        while under_way and under_way[0][0] <= time.monotonic():
            with contextlib.suppress(OSError):
                os.write(second, under_way[0][1])
            under_way.popleft()


main()
