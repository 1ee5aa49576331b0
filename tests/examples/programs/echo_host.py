"""A sidecar that answers every frame with its negative.

    python echo_host.py ENDPOINT [LAST]

Prints `ready` once it listens; after LAST answers it kills itself as kill -9 would.
"""

import os
import signal
import sys

import numpy as np

import mirage_bridge


def main() -> None:
    endpoint, last = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0
    answered = 0
    with mirage_bridge.Host(endpoint) as host:
        print("ready", flush=True)
        while True:
            host.poll(0.2)
            for session in tuple(host.sessions.values()):
                job = session.take_newest()
                if job is None:
                    continue
                draft = session.begin_answer(job)
                np.subtract(255, np.asarray(job.pixels), out=np.asarray(draft.pixels))
                session.publish(draft)
                answered += 1
                if answered == last:
                    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
