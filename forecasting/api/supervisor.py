"""The parent of several serving processes, which hears of a signal also while one of them does not answer."""

import time

from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

POLL_S = 0.1


class Supervisor(Multiprocess):
    """Serving processes that are replaced when they die or hang, and end together.

    Uvicorn's own asks one process after the other whether it lives, and waits for each answer as long as one may take
    to start: until then it hears of no signal, not even where the process has died, from the same Ctrl-C for instance.
    """

    def keep_subprocess_alive(self) -> None:
        """Replace processes that have ended or do not answer in time; leave all as it is where a signal has come."""
        for process in self.processes:
            if not self._answers(process) and not self.signal_queue:
                # Uvicorn then finds it dead, and asks it nothing.
                process.process.kill()
                process.process.join()
        if not self.signal_queue:
            super().keep_subprocess_alive()

    def _answers(self, process: Process) -> bool:
        deadline = time.monotonic() + self.config.timeout_worker_healthcheck
        try:
            process.parent_conn.send(b"ping")
            while time.monotonic() < deadline and not self.signal_queue and process.process.is_alive():
                if process.parent_conn.poll(POLL_S):
                    process.parent_conn.recv()
                    return True
        except (OSError, EOFError):
            pass  # its end of the pipe is closed
        return False
