"""What libraries say of what semipix does on purpose."""

import logging
import threading
import warnings
from collections.abc import Iterator

import pytest

from semipix.training.quiet import quiet


@pytest.fixture
def silenced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo everything afterwards."""
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr("semipix.training.quiet._usual_hook", threading.__excepthook__)  # not pytest's
    levels = {name: logging.getLogger(name).level for name in ("lightning.pytorch", "lightning.fabric")}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet()
        yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def test_only_what_is_done_on_purpose_is_silent(silenced: None) -> None:
    warnings.warn("The 'train_dataloader' does not have many workers which may be a bottleneck.", stacklevel=1)
    warnings.warn("Checkpoint directory run/checkpoints exists and is not empty.", stacklevel=1)
    with pytest.raises(UserWarning, match="something else"):
        warnings.warn("something else", stacklevel=1)
    assert not logging.getLogger("lightning.pytorch").isEnabledFor(logging.INFO)


@pytest.mark.parametrize(("error", "printed"), [(OSError(28, "No space left"), False), (ValueError("a bug"), True)])
def test_a_thread_that_could_not_write_prints_no_trace(
    error: Exception, printed: bool, silenced: None, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    assert (type(error).__name__ in capsys.readouterr().err) is printed
