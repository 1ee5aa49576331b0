"""A sidecar process for tests: the real bridge, pacing and recorder around a net that copies the frame.

    python stub_sidecar.py ENDPOINT [old|silent]

``old`` answers ``profile`` in another format; ``silent`` has no profiler. It ends when its stdin closes.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import numpy as np

import mirage_bridge
from mirage_plugin import pacing
from mirage_plugin.profiler import Recorder, activate, staged


@staged("denoise")
def denoise(pixels: Any) -> Any:
    """Darker by half."""
    return pixels >> 1


@staged("compose")
def compose(edited: Any, draft: mirage_bridge.AnswerDraft) -> None:
    """Into the answer's slot."""
    np.asarray(draft.pixels)[...] = edited


def serve(endpoint: str, mode: str) -> None:
    """Serve until stdin closes."""
    stopping = threading.Event()
    with (
        mirage_bridge.Host(bind=endpoint) as host,
        Recorder(info={"tier": "stub", "device": "cpu"}) as recorder,
    ):
        threading.Thread(target=lambda: (sys.stdin.read(), stopping.set(), host.wake()), daemon=True).start()
        activate(recorder)
        if mode == "old":
            host.handle("profile", lambda fields: recorder.page(fields) | {"format": 0})
        elif mode != "silent":
            host.handle("profile", recorder.page)
        paces: dict[int, pacing.Pace] = {}
        print("ready", flush=True)
        while not stopping.is_set():
            for event in host.poll(0.2):
                if isinstance(event, mirage_bridge.SessionOpened):
                    session = event.session
                    rungs = [pacing.Rung(session.size)]
                    paces[session.id] = pacing.start(rungs, session.offer.budget_ns, session.offer.delivery)
                    recorder.describe(session.id, size=list(session.size), budget_ns=session.offer.budget_ns)
            for session in tuple(host.sessions.values()):
                job = session.take_newest()
                if job is not None and session.id in paces:
                    paces[session.id] = answer(session, job, paces[session.id], recorder)


def answer(
    session: mirage_bridge.HostSession, job: mirage_bridge.FrameJob, pace: pacing.Pace, recorder: Recorder
) -> pacing.Pace:
    """One frame, by whatever pacing decides; there is nothing to reuse."""
    frame = pacing.FrameTimes(job.published_ns, job.deadline_ns, job.skipped, job.camera_cut)
    row = recorder.begin(
        session.id,
        job.frame_id,
        job.published_ns,
        job.deadline_ns,
        job.input_ns,
        job.captured_ns,
        job.skipped,
    )
    began_ns = time.monotonic_ns()
    decision = pacing.decide(pace, began_ns, frame)
    recorder.decided(decision)
    if decision.action == "net":
        draft = session.begin_answer(job)
        compose(denoise(np.asarray(job.pixels)), draft)
        with recorder.stage("publish"):
            session.publish(draft, "styled", decision.reason, working_size=decision.size)
        kind = "styled"
    else:
        with recorder.stage("publish"):
            session.publish_source(job, decision.reason)
        kind = "source"
    finished_ns = time.monotonic_ns()
    recorder.finish(row, kind, finished_ns)
    return pacing.observe(pace, decision, frame, began_ns, finished_ns)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "")
