"""Reads a lane as fast as it can and counts torn slots.  Arguments: address JSON, seconds."""

from __future__ import annotations

import base64
import json
import sys
import time

import numpy as np

from mirage_bridge.memory import Segment
from mirage_bridge.protocol import FrameRecord, Layout, Offer
from mirage_bridge.ring import LaneReader, Words, frame_base, plane_array

address = json.loads(sys.argv[1])
address["token"] = base64.b64decode(address["token"])
layout = Layout.of(Offer(size=tuple(address.pop("size"))))
segment = Segment.attach(layout, address)
words = Words(segment.memory, game=False)
lane = LaneReader(words, segment.memory, 0, layout.frame_slots)
print(json.dumps({"event": "attached"}), flush=True)
end_s = time.monotonic() + float(sys.argv[2])
taken = torn = disorder = 0
last = 0
held: list[tuple[int, int, int, np.ndarray, int]] = []
while time.monotonic() < end_s:
    got = lane.take()
    if got is not None:
        pin, slot, data = got
        record = FrameRecord.unpack(data)
        pixels = plane_array(segment.memory, frame_base(layout, slot), layout.frame_planes["pixels"])
        taken += 1
        disorder += record.sequence <= last
        last = record.sequence
        held.append((pin, slot, record.sequence, pixels, record.frame_id & 255))
    # Two are held for a while, so that both pins are in use most of the time.
    if len(held) == 2 or (held and got is None):
        pin, slot, sequence, pixels, value = held.pop(0)
        torn += not bool((pixels == value).all())
        torn += not lane.release(pin, slot, sequence)
print(
    json.dumps({"event": "done", "taken": taken, "torn": torn, "disorder": disorder, "faults": lane.faults}),
    flush=True,
)
