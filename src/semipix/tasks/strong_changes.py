"""Which changes of an image make strong views of a task."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class StrongChanges:
    """The changes that strong views of a task may have, each with its default strength. None means not allowed.

    A change is allowed if the label of the changed image is known: it is the label of the image (jitter, grey, blur,
    mask, drop), or that label with the same change (permute, gain). The keys `data.strong_*` replace the strengths.

    Attributes:
        jitter: strength of the change of brightness, contrast and saturation; hue changes by half of it.
        grey: share of the views without colour.
        blur: share of the views with a Gaussian blur.
        mask: share of the patches of each view that are hidden.
        drop: share of the views in which one of red, green and blue is hidden.
        permute: share of the views of which image and label have their colour channels in another order.
        gain: largest share of its brightness that a view loses, image and label alike.
        learn_hidden: whether hidden pixels are learned too, from their surroundings; otherwise the consistency loss
            counts the visible pixels only.
    """

    jitter: float | None = 0.5
    grey: float | None = 0.2
    blur: float | None = 0.5
    mask: float | None = 0.0
    drop: float | None = 0.0
    permute: float | None = None
    gain: float | None = None
    learn_hidden: bool = True

    @property
    def refused(self) -> tuple[str, ...]:
        """Names of the changes that are not allowed."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name) is None)
