"""The parent of several serving processes, which hears of a signal also while one of them does not answer."""

import signal
import socket
import time
from multiprocessing import resource_tracker

import uvicorn
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import SIGNALS, Process

from forecasting import interrupts

POLL_S = 0.1


class Supervisor(Multiprocess):
    """Serving processes that are replaced when they die or hang, and end together.

    Uvicorn's own asks one process after the other whether it lives, and waits for each answer as long as one may take
    to start: until then it hears of no signal, not even where the process has died, from the same Ctrl-C for instance.

    Attributes:
        ended_by: the signal that asked for the end; None before, and where a process could not start.
    """

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        self.ended_by: signal.Signals | None = None
        self._handlers = {number: signal.getsignal(number) for number in SIGNALS}
        super().__init__(config, sockets)

    def run(self) -> None:
        """Run until a signal asks for the end, which whoever began this is then told of as uvicorn's server does."""
        super().run()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self.ended_by is not None:
            signal.raise_signal(self.ended_by)

    def handle_int(self) -> None:
        """End the processes, because of Ctrl-C."""
        self.ended_by = signal.SIGINT
        super().handle_int()

    def handle_term(self) -> None:
        """End the processes, because of SIGTERM."""
        self.ended_by = signal.SIGTERM
        super().handle_term()

    def init_processes(self) -> None:
        """Start the processes."""
        # Python's own start of it lets Ctrl-C through again.
        resource_tracker.ensure_running()
        # The same Ctrl-C would end them in the middle of their imports, each with a traceback.
        with interrupts.held():
            super().init_processes()

    def restart_all(self) -> None:
        """Replace the processes, one after the other."""
        with interrupts.held():
            super().restart_all()

    def handle_ttin(self) -> None:
        """Start one process more."""
        with interrupts.held():
            super().handle_ttin()

    def keep_subprocess_alive(self) -> None:
        """Replace processes that have ended or do not answer in time; leave all as it is where a signal has come."""
        if self.should_exit.is_set():
            return
        for process in self.processes:
            if not self._answers(process) and not self.signal_queue:
                # Uvicorn then finds it dead, and asks it nothing.
                process.process.kill()
                process.process.join()
        if not self.signal_queue:
            with interrupts.held():
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
