"""What crossing the process border costs: `python benchmarks/bridge.py --json FILE`.

Every row is a round trip: one side publishes a frame, an echo in another process sees it and publishes an
answer, the first side sees the answer.  Rows marked *in place* move no pixels: both sides look at them where
they stand.  Rows marked *copied* copy every pixel three times: into the slot, from frame to answer, and out
of the answer; *copied in and out* leaves out the host's.  The floor is the machine's: one byte through a pipe
and back.  Ratios are against raw ``multiprocessing.shared_memory`` with a ZeroMQ socket for the wake-up, and
against ZeroMQ alone, in one run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import numpy as np
import zmq

import mirage_bridge as mb

SIZES = {"1080p": (1920, 1080), "4K": (3840, 2160)}
Row = dict[str, Any]


def summary(name: str, samples_ns: list[int], **more: object) -> Row:
    """p50, p99 and max in microseconds, with the number of samples they stand on."""
    samples_ns.sort()
    count = len(samples_ns)
    row = {
        "name": name,
        "samples": count,
        "p50_us": round(statistics.median(samples_ns) / 1e3, 1),
        "p99_us": round(samples_ns[min(count - 1, count * 99 // 100)] / 1e3, 1),
        "max_us": round(samples_ns[-1] / 1e3, 1),
    }
    return row | more


def echo_host(address: str, copy: bool, ready: Any) -> None:
    """A host that answers every frame; with ``copy`` it copies every pixel across."""
    with mb.Host(address, mb.Capabilities(max_sessions=32)) as host:
        stopping = False

        def stop(_fields: Any) -> dict[str, Any]:
            nonlocal stopping
            stopping = True
            return {}

        host.handle("stop", stop)
        host.handle("pid", lambda _fields: {"pid": os.getpid()})
        ready.put(host.endpoint)
        while not stopping:
            host.poll(0.5)
            for session in tuple(host.sessions.values()):
                job = session.take_newest()
                if job is not None:
                    draft = session.begin_answer(job)
                    if copy:
                        np.copyto(np.asarray(draft.pixels), np.asarray(job.pixels))
                    session.publish(draft)


@contextmanager
def echo(address: str, copy: bool = False) -> Iterator[str]:
    """An echo host in another process."""
    ready: Any = mp.Queue()
    process = mp.Process(target=echo_host, args=(address, copy, ready), daemon=True)
    process.start()
    endpoint = ready.get(timeout=120)
    try:
        yield endpoint
    finally:
        mb.request(endpoint, "stop")
        process.join(10)


def trips(session: mb.Session, count: int, copy: bool) -> list[int]:
    """Round trips of one session, from before the publication until the answer's pixels can be read."""
    size = session.size
    picture = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 4), np.uint8)
    shown = np.empty_like(picture)
    samples = []
    while len(samples) < count:
        frame = session.begin_frame()
        pixels = np.asarray(frame.pixels)
        before_ns = time.perf_counter_ns()
        if copy:
            np.copyto(pixels, picture)
        with session.wait_answer(session.end_frame(frame)) as answer:
            if not answer.answered:
                raise SystemExit(f"the echo did not answer: {answer.reason}")
            if copy:
                np.copyto(shown, np.asarray(answer.pixels))
            samples.append(time.perf_counter_ns() - before_ns)
    return samples[count // 10 :]


def bridge(
    address: str, size: tuple[int, int], count: int, copy: bool, host_copies: bool | None = None, **how: Any
) -> list[int]:
    """Round trips through the bridge; with `copy` the game copies in and out, and the host as well by default."""
    with (
        echo(address, copy if host_copies is None else host_copies) as endpoint,
        mb.Session(endpoint, size, planes=(), budget_ms=10_000, **how) as session,
    ):
        if not session.wait_ready(10):
            raise SystemExit(f"the echo is not ready: {session.refusal}")
        return trips(session, count, copy)


def one_of_many(endpoint: str, count: int, pace_s: float, results: Any) -> None:
    """A client beside others, each at its own 60 Hz."""
    with mb.Session(endpoint, SIZES["1080p"], planes=(), budget_ms=10_000) as session:
        session.wait_ready(20)
        samples = []
        due_s = time.perf_counter()
        for _ in range(count):
            before_ns = time.perf_counter_ns()
            frame = session.begin_frame()
            with session.wait_answer(session.end_frame(frame)) as answer:
                if answer.answered:
                    samples.append(time.perf_counter_ns() - before_ns)
            due_s += pace_s
            time.sleep(max(0.0, due_s - time.perf_counter()))
        results.put(samples)


def clients(address: str, number: int, count: int) -> Row:
    """``number`` games at once, each paced at 60 Hz."""
    with echo(address) as endpoint:
        results: Any = mp.Queue()
        games = [
            mp.Process(target=one_of_many, args=(endpoint, count, 1 / 60, results)) for _ in range(number)
        ]
        for game in games:
            game.start()
        samples = [results.get(timeout=300) for _ in games]
        for game in games:
            game.join()
    every = [sample for each in samples for sample in each]
    return summary(
        f"{number} games at 60 Hz, 1080p in place", every, answered=len(every), asked=number * count
    )


def raw_echo(name: str, size_bytes: int, address: str, copy: bool) -> None:
    memory = shared_memory.SharedMemory(name)
    sock: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PAIR)
    sock.connect(address)
    frame = np.ndarray(size_bytes, np.uint8, memory.buf)
    answer = np.ndarray(size_bytes, np.uint8, memory.buf, size_bytes)
    while sock.recv() != b"stop":
        if copy:
            np.copyto(answer, frame)
        sock.send(b"d" * 128)
    sock.close(0)
    del frame, answer
    memory.close()


def raw(address: str, size: tuple[int, int], count: int, copy: bool) -> list[int]:
    """``multiprocessing.shared_memory`` for the pixels, a ZeroMQ PAIR for the wake-up, and no safety."""
    size_bytes = size[0] * size[1] * 4
    memory = shared_memory.SharedMemory(create=True, size=2 * size_bytes)
    sock: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PAIR)
    sock.bind(address)
    process = mp.Process(target=raw_echo, args=(memory.name, size_bytes, address, copy), daemon=True)
    process.start()
    frame = np.ndarray(size_bytes, np.uint8, memory.buf)
    answer = np.ndarray(size_bytes, np.uint8, memory.buf, size_bytes)
    picture = np.random.default_rng(0).integers(0, 255, size_bytes, np.uint8)
    shown = np.empty_like(picture)
    samples = []
    for _ in range(count):
        before_ns = time.perf_counter_ns()
        if copy:
            np.copyto(frame, picture)
        sock.send(b"d" * 128)
        sock.recv()
        if copy:
            np.copyto(shown, answer)
        samples.append(time.perf_counter_ns() - before_ns)
    sock.send(b"stop")
    process.join(10)
    sock.close(0)
    del frame, answer
    memory.close()
    memory.unlink()
    return samples[count // 10 :]


def zmq_echo(address: str) -> None:
    sock: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PAIR)
    sock.connect(address)
    while True:
        part = sock.recv(copy=False)
        if len(part.buffer) == 4:
            break
        sock.send(part, copy=False)
    sock.close(0)


def zmq_alone(address: str, size_bytes: int, count: int) -> list[int]:
    """The pixels as ZeroMQ messages, without copies of ours."""
    sock: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PAIR)
    sock.bind(address)
    process = mp.Process(target=zmq_echo, args=(sock.get_string(zmq.LAST_ENDPOINT),), daemon=True)
    process.start()
    picture = np.random.default_rng(0).integers(0, 255, size_bytes, np.uint8)
    samples = []
    for _ in range(count):
        before_ns = time.perf_counter_ns()
        sock.send(picture, copy=False)
        sock.recv(copy=False)
        samples.append(time.perf_counter_ns() - before_ns)
    sock.send(b"stop")
    process.join(10)
    sock.close(0)
    return samples[count // 10 :]


def pipe_echo(read: int, write: int) -> None:
    while os.read(read, 1):
        os.write(write, b"x")


def floor(count: int) -> list[int]:
    """One byte through a pipe and back: what two wake-ups of this machine cost."""
    there_read, there_write = os.pipe()
    back_read, back_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(there_write)
        pipe_echo(there_read, back_write)
        os._exit(0)
    os.close(there_read)
    samples = []
    for _ in range(count):
        before_ns = time.perf_counter_ns()
        os.write(there_write, b"x")
        os.read(back_read, 1)
        samples.append(time.perf_counter_ns() - before_ns)
    os.close(there_write)
    os.waitpid(child, 0)
    for fd in (back_read, back_write):
        os.close(fd)
    return samples[count // 10 :]


def importing(count: int) -> list[int]:
    """What `import mirage_bridge` takes in a fresh process, its files compiled and read before."""
    program = "import time; t = time.perf_counter_ns(); import mirage_bridge; print(time.perf_counter_ns() - t)"
    runs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        for _ in range(count + 1)
    ]
    return [int(run.stdout) for run in runs[1:]]


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def soak(address: str, frames: int) -> Row:
    """Many frames, with changes of style and size: memory, descriptors and mappings must stay flat."""
    with echo(address) as endpoint, mb.Session(endpoint, (640, 360), planes=(), budget_ms=1000) as session:
        session.wait_ready(10)

        host_pid = int(mb.request(endpoint, "pid")["pid"])

        def state() -> dict[str, dict[str, int]]:
            return {
                side: {
                    "rss_bytes": resident_bytes(pid),
                    "fds": len(os.listdir(f"/proc/{pid}/fd")),
                    "mappings": len(Path(f"/proc/{pid}/maps").read_text().splitlines()),
                }
                for side, pid in (("game", os.getpid()), ("host", host_pid))
            }

        early: dict[str, dict[str, int]] = {}
        for number in range(frames):
            if number % 1000 == 0:
                session.set_style(f"style {number}")
                session.resize((640, 360) if number // 1000 % 2 else (320, 180))
            frame = session.begin_frame()
            frame.pixels[:8] = number & 255
            with session.wait_answer(session.end_frame(frame)):
                pass
            if number == min(1900, frames // 10):
                early = state()
        stats = session.stats()
        late = state()
    return {
        "name": f"soak of {frames} frames",
        "early": early,
        "late": late,
        "answered": stats.styled,
        "late_answers": stats.late,
        "faults": stats.faults,
    }


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return {
        "date": date.today().isoformat(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pyzmq": zmq.__version__,
        "libzmq": zmq.zmq_version(),
        "commit": asked.stdout.strip(),
    }


def main() -> None:
    """Measure, print a table, and write it where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    parser.add_argument("--count", type=int, default=1000, help="round trips a row (default 1000)")
    parser.add_argument(
        "--soak", type=int, default=0, metavar="FRAMES", help="soak for so many frames instead"
    )
    options = parser.parse_args()
    mp.set_start_method("spawn")
    result: dict[str, Any] = {"machine": machine(), "rows": []}
    rows: list[Row] = result["rows"]

    def measure(name: str, run: Callable[[], list[int]], **more: object) -> None:
        rows.append(summary(name, run(), **more))
        show(rows[-1])

    with tempfile.TemporaryDirectory(prefix="mb") as directory:
        number = 0

        def ipc() -> str:
            nonlocal number
            number += 1
            return f"ipc://{directory}/{number}"

        if options.soak:
            rows.append(soak(ipc(), options.soak))
            show(rows[-1])
        else:
            count, hd = options.count, SIZES["1080p"]
            hd_bytes = hd[0] * hd[1] * 4
            few = max(50, count // 5)
            measure("import mirage_bridge", lambda: importing(10))
            measure("floor: a byte through a pipe and back", lambda: floor(count))
            measure("bridge, 1080p in place", lambda: bridge(ipc(), hd, count, False))
            measure("bridge, 1080p copied in and out", lambda: bridge(ipc(), hd, few, True, host_copies=False))
            measure("bridge, 1080p copied", lambda: bridge(ipc(), hd, few, True))
            measure("bridge, 4K in place", lambda: bridge(ipc(), SIZES["4K"], count, False))
            measure("bridge, 4K copied", lambda: bridge(ipc(), SIZES["4K"], few, True))
            measure("raw shared memory + ZeroMQ, 1080p in place", lambda: raw(ipc(), hd, count, False))
            measure("raw shared memory + ZeroMQ, 1080p copied", lambda: raw(ipc(), hd, few, True))
            measure("ZeroMQ alone over ipc, 1080p", lambda: zmq_alone(ipc(), hd_bytes, few))
            measure("bridge over tcp loopback, 1080p", lambda: bridge("tcp://127.0.0.1:*", hd, few, False))
            measure(
                "ZeroMQ alone over tcp loopback, 1080p", lambda: zmq_alone("tcp://127.0.0.1:*", hd_bytes, few)
            )
            for games in (1, 4, 16):
                rows.append(clients(ipc(), games, max(30, count // 10)))
                show(rows[-1])
            by_name = {row["name"]: row for row in rows}
            result["ratios_p50"] = {
                f"{ours} / {theirs}": round(by_name[ours]["p50_us"] / by_name[theirs]["p50_us"], 3)
                for ours, theirs in (
                    ("bridge, 1080p in place", "floor: a byte through a pipe and back"),
                    ("bridge, 1080p in place", "raw shared memory + ZeroMQ, 1080p in place"),
                    ("bridge, 1080p copied", "raw shared memory + ZeroMQ, 1080p copied"),
                    ("bridge, 1080p copied", "ZeroMQ alone over ipc, 1080p"),
                    ("bridge over tcp loopback, 1080p", "ZeroMQ alone over tcp loopback, 1080p"),
                )
            }
            for name, ratio in result["ratios_p50"].items():
                print(f"{ratio:8.3f}  {name}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.soak and not options.json:
        json.dump(result, sys.stdout, indent=1)


def show(row: Row) -> None:
    """One line of the table."""
    if "p50_us" in row:
        times = (f"{name} {row[f'{name}_us']:9.1f} us" for name in ("p50", "p99", "max"))
        print(f"{row['name']:48} {'  '.join(times)}")
    else:
        print(row)


if __name__ == "__main__":
    main()
