"""Signals that end a command: SIGINT (Ctrl-C), SIGTERM and SIGHUP (the terminal was closed).

The first one is remembered, and raises `Interrupted` where that is safe. Where it is not, as in the middle of a step or
while processes are started, `deferred` keeps it back, and the code asks for it at its next boundary by `received` or
`check`. A library that swallows the exception does not lose the signal: every later `check` raises.

A second SIGINT or SIGTERM ends the process and those that it started at once. What is on disk is whole even then, since
files are renamed into place.
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

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Numbers of the signals that are handled."""

TWICE = (signal.SIGINT, signal.SIGTERM)
"""Those of which a second one ends at once. SIGHUP comes twice by itself, from the terminal and from the shell."""

MESSAGE = "interrupted"
"""What a user is shown where nothing more is known."""

SAME = 0.5
"""Seconds within which a signal comes again without being a second one: `timeout` and torchrun send theirs to a process
and to its group."""

SLOW = 0.2
"""Seconds that the main thread has for its part before another thread answers the user in its place."""


class Interrupted(KeyboardInterrupt):
    """A signal asked for the end.

    Args:
        number: the signal's.
        message: what the user is shown, one line.
    """

    def __init__(self, number: int = signal.SIGINT, message: str = MESSAGE) -> None:
        super().__init__(message)
        self.number = number


class Stopped(BaseException):
    """Ends a loop of Lightning after a signal. A `KeyboardInterrupt` would make Lightning exit in its own way."""


class Handlers:
    """The handlers of one command, and what they have seen.

    Attributes:
        number: the first signal that came, or None.
        handled: numbers of the signals that have a handler of this object.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._process = os.getpid()
        self._deferred: list[str | None] = [None]  # until the caller is ready for an exception
        self._announced = False
        self._seen = False  # by the main thread
        self._came: dict[int, float] = {}
        self._previous: dict[int, Any] = {}
        self.handled: list[int] = []

    def __enter__(self) -> "Handlers":
        """Install the handlers; a signal that is ignored, as SIGHUP is under nohup, stays so."""
        for number in ENDING:
            if (found := signal.getsignal(number)) != signal.SIG_IGN:
                self._previous[number] = found
                self.handled.append(number)
        self._hooks = sys.excepthook, sys.unraisablehook
        sys.excepthook = _but_interruptions(sys.excepthook, lambda kind, *_: kind)
        sys.unraisablehook = _but_interruptions(sys.unraisablehook, lambda found: found.exc_type)
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._watcher = threading.Thread(target=self._watch, name="signals", daemon=True)
        self._watcher.start()
        self.install()
        return self

    def install(self) -> None:
        """Install the handlers again, after a library has replaced them."""
        for number in self.handled:
            signal.signal(number, self._handle)

    def __exit__(self, *_: Any) -> None:
        for number, found in self._previous.items():
            signal.signal(number, signal.SIG_DFL if found is None else found)
        signal.set_wakeup_fd(self._wakeup)
        os.write(self._write, b"\0")
        self._watcher.join()
        os.close(self._read)
        os.close(self._write)
        sys.excepthook, sys.unraisablehook = self._hooks

    def begin(self) -> None:
        """Let a signal raise from here on."""
        self._deferred.pop()
        if self.number:
            raise Interrupted(self.number)

    def end(self) -> None:
        """Let no signal raise any more."""
        self._deferred.append(None)

    @contextlib.contextmanager
    def deferred(self, what: str | None) -> Iterator[None]:
        """Keep signals back; see the function of this name."""
        self._deferred.append(what)
        try:
            yield
        finally:
            self._deferred.pop()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Called by Python in the main thread, between two of its instructions."""
        if os.getpid() != self._process:  # forked, and its parent decides
            return
        first, self._seen = not self._seen, True
        self.number = self.number or number
        if not first:
            return
        if self._deferred:
            self._announce()
            if hasattr(signal, "SIGCHLD"):
                # A signal to the whole group ends the data-loading workers too, and torch's handler would raise in the
                # middle of the last step, for which the data are there already.
                self._previous.setdefault(signal.SIGCHLD, signal.signal(signal.SIGCHLD, _nothing))
        else:
            raise Interrupted(self.number)

    def _watch(self) -> None:
        """Take note of signals in a thread; handlers wait while the main thread computes in a library."""
        while number := os.read(self._read, 1)[0]:
            if number not in self.handled:
                continue
            now = time.monotonic()
            if number in self._came:
                if number in TWICE and now - self._came[number] > SAME:
                    end_at_once(number)
                continue
            self._came[number] = now
            if len(self._came) == 1:
                while not self._seen and time.monotonic() - now < SLOW:
                    time.sleep(0.01)
                self.number = self.number or number
                if not self._seen:
                    self._announce()

    def _announce(self) -> None:
        what = self._deferred[-1] if self._deferred else None
        if what and not self._announced and is_first():
            self._announced = True
            line = f"\nsemipix: stopping after this {what}; press Ctrl-C again to stop now\n"
            with contextlib.suppress(OSError):  # the terminal is gone
                os.write(2, line.encode())


def _nothing(number: int, frame: FrameType | None) -> None:
    pass


def _but_interruptions(hook: Callable[..., Any], kind: Callable[..., Any]) -> Callable[..., Any]:
    """A hook that prints exceptions, without those that a signal raised where nothing can be raised."""

    def quiet(*found: Any) -> None:
        if kind(*found) is not Interrupted:
            hook(*found)

    return quiet


def end_at_once(number: int) -> None:
    """End this process and all that it started."""
    kill_all()
    os._exit(128 + number)


_active: Handlers | None = None


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Handle signals while a command runs; in other threads than the main one, and within another one, do nothing."""
    global _active
    if _active is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    with Handlers() as _active:
        try:
            _active.begin()
            yield
        finally:
            _active.end()
            _active = None


@contextlib.contextmanager
def deferred(what: str | None) -> Iterator[None]:
    """Keep signals back while this lasts; whoever enters asks for them by `received`.

    Args:
        what: after what the command stops, for the line that a user then sees: `step`. None: without such a line.

    Raises:
        Interrupted: a signal has come before.
    """
    check()
    if _active is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    with _active.deferred(what):
        yield


def received() -> int | None:
    """The number of the first signal that asked for the end; None where there was none, or where none is handled."""
    return None if _active is None else _active.number


def check(cause: BaseException | None = None, message: str = MESSAGE) -> None:
    """Raise where a signal asked for the end.

    Args:
        cause: what a library raised, which may come of the signal.
        message: what the user is shown.

    Raises:
        Interrupted: a signal has come.
    """
    if number := received():
        raise Interrupted(number, message) from cause


def install_again() -> None:
    """Install the handlers again, after a library has put its own in their place."""
    if _active is not None:
        _active.install()


def number_of(interruption: BaseException) -> int:
    """The signal's number of any exception that stands for an interruption."""
    return int(getattr(interruption, "number", None) or received() or signal.SIGINT)


# A process that is forked has the handlers of its parent at first. Signals wait until it has some that do nothing; a
# program that it starts then has the default ones again.

_masks: dict[int, set[int | signal.Signals]] = {}
"""Signals that a thread had blocked before it forked."""


def _before_fork() -> None:
    if _active is not None:
        _masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)


def _after_fork_in_parent() -> None:
    if (mask := _masks.pop(threading.get_ident(), None)) is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _after_fork_in_child() -> None:
    global _active
    if _active is not None:
        signal.set_wakeup_fd(-1)
        for number in _active.handled:
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else _nothing)
    _active = None
    _after_fork_in_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
