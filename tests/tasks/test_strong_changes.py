"""Which changes each task allows in its strong views."""

from semipix.tasks.base import Task
from semipix.tasks.denoising import Denoising
from semipix.tasks.enhancement import Enhancement
from semipix.tasks.matting import Matting
from semipix.tasks.regression import Regression
from semipix.tasks.segmentation import Segmentation
from semipix.tasks.strong_changes import StrongChanges


def test_a_change_without_a_strength_is_refused() -> None:
    assert StrongChanges(jitter=None, mask=None).refused == ("jitter", "mask", "permute", "gain")
    assert StrongChanges(permute=0.0, gain=0.0).refused == ()


def test_labels_that_are_no_images_allow_all_changes_of_the_image_alone() -> None:
    tasks: list[type[Task]] = [Segmentation, Matting, Regression]
    for task in tasks:
        assert task.strong_changes == StrongChanges(jitter=0.5, grey=0.2, blur=0.5)
        assert task.strong_changes.refused == ("permute", "gain")


def test_labels_that_are_images_allow_what_changes_the_label_alike() -> None:
    assert Denoising.strong_changes.refused == ("jitter", "grey", "blur")
    assert Enhancement.strong_changes.refused == ("jitter", "grey", "blur", "gain")
