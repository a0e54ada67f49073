"""Check that the data fit the task."""

from collections.abc import Sequence

from semipix.data.source import Source
from semipix.data.targets import KINDS, data_for
from semipix.errors import SemipixError
from semipix.tasks.base import Task

_TARGETS = {
    "segmentation": "masks of class indices",
    "matting": "alpha mattes and trimaps",
    "regression": "images or maps as targets",
}


def check_serves(task: Task | type[Task], source: Source) -> None:
    """Check that a source has the kind of targets that a task needs.

    Args:
        task: the task, or its class as long as the number of its channels is not known.
        source: the data.

    Raises:
        SemipixError: the targets are of another kind, or have another number of channels or more classes than the task.
    """
    name = (task if isinstance(task, type) else type(task)).__name__
    asked = "segmentation" if task.classification else "matting" if task.trimap else "regression"
    given = source.kind if source.kind in _TARGETS else "regression"
    if asked != given:
        serving = data_for(*(KINDS[1:3] + KINDS[4:] if asked == "regression" else (asked,)))
        raise SemipixError(
            f"task: {name} learns from {_TARGETS[asked]}, but data: {type(source).__name__} has {_TARGETS[given]} "
            f"(kind {source.kind}); set data={'|'.join(serving)}, or a task that fits the data"
        )
    channels = getattr(task, "channels", None)
    if asked == "regression" and None not in (channels, source.channels) and channels != source.channels:
        raise SemipixError(
            f"task: {name} predicts {channels} channels, but the targets of data: {type(source).__name__} "
            f"(kind {source.kind}) have {source.channels}; set task.channels={source.channels} if the task has such a "
            "key, or other data"
        )
    _check_classes(task, source)


def _check_classes(task: Task | type[Task], source: Source) -> None:
    """Check that a task has a channel for each class.

    Raises:
        SemipixError: the data have more classes than the task has channels.
    """
    channels, given = getattr(task, "channels", None), source.classes
    if not task.classification or channels is None or given is None or len(given) <= channels:
        return
    own = getattr(task, "classes", None)
    names = f" ({_some(own)})" if own else ""
    raise SemipixError(
        f"data: {len(given)} classes ({_some(given)}), but the task has {channels}{names}; give the data that the run "
        "was trained on, or, in a new training, name all classes in task.classes"
    )


def _some(names: Sequence[str]) -> str:
    """At most eight names of a list, as text."""
    return ", ".join([*names[:8], *(["..."] if len(names) > 8 else [])])
