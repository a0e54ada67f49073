"""Signals that end a command: SIGINT (Ctrl-C), SIGTERM and SIGHUP (the terminal was closed).

How a signal ends a command:

1. The first signal is stored, and its handler raises `Interrupted` in the main thread.
2. Within `deferred`, for example in a training step, it is only stored; the code asks for it by `received` or
   `raise_if_interrupted` at the next point where it can stop.
3. Handlers wait while the main thread is in a long call of a library, so a second thread stores the signal then and
   prints that the command will stop.
4. A second SIGINT or SIGTERM kills the process and all that it started; files are complete even then, since they are
   renamed after they were written.
5. A library may suppress the exception, but the signal stays stored and every later `raise_if_interrupted` raises.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from semipix.processes import is_first, kill_all

ENDING_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Numbers of the signals that are handled."""

TWICE = (signal.SIGINT, signal.SIGTERM)
"""Signals that kill the process the second time. A closed terminal sends SIGHUP twice: itself, and by the shell."""

MESSAGE = "interrupted"
"""Message for the user, if there is no better one."""

SAME = 0.5
"""Seconds in which a signal may come again without counting as a second one: `timeout` and torchrun send each signal
to a process and to its group."""

SLOW = 0.2
"""Seconds after which the watching thread stores a signal whose handler has not run."""


class Interrupted(KeyboardInterrupt):
    """A signal was received.

    Args:
        number: number of the signal.
        message: message for the user, one line.
    """

    def __init__(self, number: int = signal.SIGINT, message: str = MESSAGE) -> None:
        super().__init__(message)
        self.number = number


class Stopped(BaseException):
    """Ends a loop of Lightning after a signal. After a `KeyboardInterrupt` Lightning would exit the process itself."""


class Handlers:
    """The signal handlers of one command, as a context manager.

    A signal that is ignored stays ignored, such as SIGHUP under nohup.

    Attributes:
        number: number of the first signal that was received, or None.
        previous: the handlers that were replaced, by number of the signal.
        deferred: arguments of the `deferred` blocks that are active, the innermost last. A signal raises only while it
            is empty; the first element keeps signals from raising before and after the command.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.previous: dict[int, Any] = {}
        self.deferred: list[str | None] = [None]
        self._process = os.getpid()
        self._announced = False
        self._handled = False  # whether a handler has run

    def __enter__(self) -> "Handlers":
        self.previous = {
            number: found for number in ENDING_SIGNALS if (found := signal.getsignal(number)) != signal.SIG_IGN
        }
        self._hooks = sys.excepthook, sys.unraisablehook
        sys.excepthook = _without_interruptions(sys.excepthook, lambda kind, *_: kind)
        sys.unraisablehook = _without_interruptions(sys.unraisablehook, lambda found: found.exc_type)
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)  # writes the signals' numbers
        self._watcher = threading.Thread(target=self._watch, name="signals", daemon=True)
        self._watcher.start()
        self.install()
        return self

    def install(self) -> None:
        """Install the handlers, also after a library has replaced them."""
        for number in set(self.previous) & set(ENDING_SIGNALS):
            signal.signal(number, self._handle)

    def __exit__(self, *_: Any) -> None:
        for number, found in self.previous.items():
            signal.signal(number, signal.SIG_DFL if found is None else found)
        signal.set_wakeup_fd(self._wakeup)
        os.write(self._write, b"\0")  # ends the watching thread
        self._watcher.join()
        os.close(self._read)
        os.close(self._write)
        sys.excepthook, sys.unraisablehook = self._hooks

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """The handler, which Python calls in the main thread between two of its instructions."""
        if os.getpid() != self._process:  # a forked process, which its parent ends
            return
        first, self._handled = not self._handled, True
        self.number = self.number or number
        if not first:
            return
        if not self.deferred:
            raise Interrupted(self.number)
        self._announce()
        if hasattr(signal, "SIGCHLD"):
            # A signal to the whole group also ends data-loading workers. Then torch's handler of SIGCHLD would raise
            # in the middle of a step whose data were loaded before.
            self.previous.setdefault(signal.SIGCHLD, signal.signal(signal.SIGCHLD, _do_nothing))

    def _watch(self) -> None:
        """Read the numbers of signals, in a thread; 0 ends it."""
        received_at: dict[int, float] = {}
        while number := os.read(self._read, 1)[0]:
            now = time.monotonic()
            if number not in ENDING_SIGNALS or number not in self.previous:
                continue
            if number not in received_at:
                received_at[number] = now
                if len(received_at) == 1:
                    self._wait_for_handler(number)
            elif number in TWICE and now - received_at[number] > SAME:
                kill_all()
                os._exit(128 + number)

    def _wait_for_handler(self, number: int) -> None:
        """Wait until the handler has run; if it is too slow, do its part."""
        deadline = time.monotonic() + SLOW
        while not self._handled and time.monotonic() < deadline:
            time.sleep(0.01)
        self.number = self.number or number
        if not self._handled:
            self._announce()

    def _announce(self) -> None:
        """Print, once and in one process, after what the command will stop."""
        what = self.deferred[-1] if self.deferred else None
        if what and not self._announced and is_first():
            self._announced = True
            line = f"\nsemipix: stopping after this {what}; press Ctrl-C again to stop now\n"
            with contextlib.suppress(OSError):  # the terminal was closed
                os.write(2, line.encode())


def _do_nothing(number: int, frame: FrameType | None) -> None:
    pass


def _without_interruptions(hook: Callable[..., Any], kind: Callable[..., Any]) -> Callable[..., Any]:
    """A hook that prints exceptions except `Interrupted`, which a handler may raise where no code can catch it."""

    def quiet(*found: Any) -> None:
        if kind(*found) is not Interrupted:
            hook(*found)

    return quiet


_active: Handlers | None = None


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Handle signals while a command runs; has no effect within another `handled` or outside of the main thread."""
    global _active
    if _active is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    with Handlers() as _active:
        try:
            _active.deferred.pop()
            raise_if_interrupted()  # a signal may have come while the handlers were installed
            yield
        finally:
            _active.deferred.append(None)
            _active = None


@contextlib.contextmanager
def deferred(what: str | None) -> Iterator[None]:
    """Let signals not raise in this block, which has to ask for them by `received` or `raise_if_interrupted`.

    Args:
        what: for the line that the user then sees, what the command completes before it stops, such as `step`. None
            prints no line.

    Raises:
        Interrupted: a signal was received before.
    """
    raise_if_interrupted()
    if _active is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    _active.deferred.append(what)
    try:
        yield
    finally:
        _active.deferred.pop()


def received() -> int | None:
    """The number of the first signal that was received; None if there was none, or outside of `handled`."""
    return None if _active is None else _active.number


def raise_if_interrupted(cause: BaseException | None = None, message: str = MESSAGE) -> None:
    """Raise if a signal was received.

    Args:
        cause: an error of a library, which the signal may have caused.
        message: message for the user.

    Raises:
        Interrupted: a signal was received.
    """
    if number := received():
        raise Interrupted(number, message) from cause


def install_again() -> None:
    """Install the handlers again, after a library has replaced them."""
    if _active is not None:
        _active.install()


def number_of(interruption: BaseException) -> int:
    """The number of the signal that caused an exception; SIGINT if it is not known."""
    return int(getattr(interruption, "number", None) or received() or signal.SIGINT)


# A forked process first has its parent's handlers. So signals are blocked during a fork, until the child has replaced
# them: SIGTERM ends it, and other signals do nothing. A program that it starts has the default handlers.

_masks: dict[int, set[int | signal.Signals]] = {}
"""For each thread that forks, the signals that it had blocked before."""


def _before_fork() -> None:
    if _active is not None:
        _masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)


def _after_fork_in_parent() -> None:
    if (mask := _masks.pop(threading.get_ident(), None)) is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _after_fork_in_child() -> None:
    global _active
    if _active is not None:
        signal.set_wakeup_fd(-1)
        for number in set(_active.previous) & set(ENDING_SIGNALS):
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else _do_nothing)
    _active = None
    _after_fork_in_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
