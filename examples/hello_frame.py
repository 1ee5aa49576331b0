"""The smallest game: a drawn scene, restyled where a sidecar runs, itself where none does.

python examples/hello_frame.py [frames] [endpoint]
"""

import sys

import numpy as np

import mirage_bridge

frames = int(sys.argv[1]) if len(sys.argv) > 1 else 300
endpoint = sys.argv[2] if len(sys.argv) > 2 else None
with mirage_bridge.Session(endpoint, size=(640, 360), planes=(), style="snow") as session:
    if not session.wait_ready(timeout_s=2.0):
        print("no sidecar:", session.refusal or "start one with: mirage serve")
    shown = 0.0
    rows, columns = np.mgrid[0:360, 0:640].astype(np.int32)
    for number in range(frames):
        frame = session.begin_frame()
        frame.pixels[...] = 255
        frame.pixels[..., 0] = columns + number
        frame.pixels[..., 1] = rows * 2
        frame.pixels[..., 2] = (columns // 40 + rows // 40 + number // 20) % 2 * 200
        with session.wait_answer(session.end_frame(frame)) as answer:
            shown = answer.pixels.mean()  # a game shows answer.pixels here
    print(session.stats(), f"last frame's mean {shown:.1f}")
