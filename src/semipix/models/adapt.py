"""Make any module a task model: (N, C_in, H, W) -> (N, K, H, W)."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semipix.config import signature_of
from semipix.errors import SemipixError
from semipix.models.checkpointing import Part, checkpointed

IN_CHANNELS = ("in_channels", "in_chans", "num_channels")
"""What constructors call the channels of the image, the surest name first."""

CHANNELS = ("num_classes", "classes", "num_labels", "out_channels", "channels")
"""What constructors call the channels of the output, the surest name first: `channels` may also be a width."""


_ABOUT_SHAPES = re.compile(r"\b(shapes?|sizes?|channels?|dimensions?|height|width|elements)\b", re.IGNORECASE)
"""Words of errors by which torch and others refuse a tensor's shape."""

_NOT_ABOUT_SHAPES = ("more than 1 value per channel",)
"""Errors with such words that have another reason, and a message of their own."""

Returned = TypeVar("Returned")


class ModelShapeError(SemipixError, RuntimeError):
    """A network cannot take images of this shape, or returns something else than one map for each of them."""


class FeatureModel(Protocol):
    """The feature protocol: what a task model offers to methods that work on its feature maps (cct, unimatch).

    `forward(image)` equals `head(features(image), image.shape[-2:])`.
    """

    def features(self, image: Tensor) -> list[Tensor]:
        """Feature maps (N, C_i, H_i, W_i) of images (N, C_in, H, W), finest first; at least one."""

    def head(self, features: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Feature maps, changed or not, to outputs (N, K, H, W) of images of this height and width."""


def features_of(model: nn.Module) -> FeatureModel:
    """The model itself, where it follows the feature protocol.

    Raises:
        SemipixError: it does not.
    """
    for name in ("features", "head"):
        if not inspect.ismethod(getattr(model, name, None)):
            raise SemipixError(
                f"model: {type(model).__name__} has no method {name!r}, and the training method works on feature maps; "
                "take model=unet, pspnet or deeplab_v2, or give the module features(image) -> [maps, finest first] and "
                "head(features, size) -> output"
            )
    return cast(FeatureModel, model)


Constrain = Callable[[Tensor, Tensor], Tensor]
"""Outputs (N, K, H, W) and images (N, C_in, H, W) to outputs that agree with what the images settle."""


class Adapter(nn.Module):
    """A module of any output convention as a task model.

    Args:
        model: the module. It may return a tensor, a mapping with "out" (torchvision), an object with `logits`
            (transformers), or a list or tuple whose first element is the map; maps of another size than the image are
            resized bilinearly.
        channels: channels K that the map must have.
        constrain: what happens to the map at last, `Task.constrain`; by default nothing.

    Attributes:
        recompute: whether a training pass keeps nothing of what happens inside and computes it again for the backward
            pass, so that of several task models one graph at a time is alive.
    """

    def __init__(self, model: nn.Module, channels: int, constrain: Constrain | None = None) -> None:
        super().__init__()
        self.model = model
        self.channels = channels
        self.constrain = constrain
        self.recompute = False

    def forward(self, image: Tensor) -> Tensor:
        """Images (N, C_in, H, W) to outputs (N, K, H, W).

        Raises:
            SemipixError: the module returned something else than N maps of K channels, or refuses images of this shape.
        """
        twice = self.recompute and self.training
        returned = self._run(lambda: checkpointed(self.model, image) if twice else self.model(image), image)
        output = self._fitted(returned, image.shape[-2:])
        if len(output) != len(image):
            raise ModelShapeError(
                f"model: {self._name} returned {len(output)} maps {tuple(output.shape)} for {len(image)} images "
                f"{tuple(image.shape)}; expected one for each, let it keep the first dimension"
            )
        return output if self.constrain is None else self.constrain(output, image)

    def features(self, image: Tensor) -> list[Tensor]:
        """The module's own feature maps of images (N, C_in, H, W), finest first.

        Raises:
            SemipixError: the module does not follow the feature protocol.
        """
        model = features_of(self.model)
        if self.recompute and self.training:
            return list(self._run(lambda: checkpointed(Part(self.model, "features"), image), image))
        return list(self._run(lambda: model.features(image), image))

    def head(self, features: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """What `features` returned, changed or not, to outputs (N, K, H, W) of images of this height and width.

        A head sees no image, so nothing is constrained here: a method that works on features calls `Task.constrain`.
        """
        return self._fitted(features_of(self.model).head(features, size), size)

    def _run(self, run: Callable[[], Returned], image: Tensor) -> Returned:
        """What the module makes of images.

        Raises:
            ModelShapeError: it refuses their shape. Its other errors are its own, and keep their trace.
        """
        if torch.compiler.is_compiling():
            return run()
        try:
            return run()
        except torch.OutOfMemoryError:
            raise
        except (TypeError, ValueError, RuntimeError, AssertionError) as error:
            reason = " ".join(str(error).split())
            if not _ABOUT_SHAPES.search(reason) or any(other in reason for other in _NOT_ABOUT_SHAPES):
                raise
            raise ModelShapeError(
                f"model: {self._name} cannot take images of shape {tuple(image.shape)}: {reason}; check its channels, "
                "and data.crop and data.resize for the sizes it takes"
            ) from error

    def _fitted(self, returned: object, size: Sequence[int]) -> Tensor:
        """The map among what the module returned, with the channels and the size that a task model's has."""
        output = self._map(returned)
        if output.ndim != 4 or output.shape[1] != self.channels:
            raise ModelShapeError(
                f"model: {self._name} returned a tensor of shape {tuple(output.shape)}, expected"
                f" (N, {self.channels}, H, W) for this task; let the model give {self.channels} channels"
            )
        if tuple(output.shape[-2:]) != tuple(size):
            output = F.interpolate(output, size=tuple(size), mode="bilinear", align_corners=False)
        return output

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The module's own groups with their `lr_scale`, or one group of everything."""
        groups = getattr(self.model, "parameter_groups", None)
        if groups is None:
            return [{"params": list(self.model.parameters()), "lr_scale": 1.0}]
        own: list[dict[str, Any]] = groups()
        return own

    @property
    def _name(self) -> str:
        return type(self.model).__name__

    def _map(self, output: object) -> Tensor:
        """The map among what the module returned."""
        found: object = output
        if isinstance(output, Mapping) and "out" in output:
            found = output["out"]
        elif hasattr(output, "logits"):
            found = output.logits
        elif isinstance(output, (list, tuple)) and output:
            found = output[0]
        if isinstance(found, Tensor):
            return found
        keys = f" with keys {sorted(map(str, output))}" if isinstance(output, Mapping) else ""
        raise SemipixError(
            f"model: {self._name} returned a {type(output).__name__}{keys}, expected a tensor, a mapping with 'out',"
            " an object with .logits, or a list whose first element is the map; wrap it in a module that returns one"
        )


def adapt(model: nn.Module, channels: int, constrain: Constrain | None = None) -> Adapter:
    """Make a module a task model.

    Args:
        model: any module that maps images (N, C_in, H, W) to maps.
        channels: channels K that the map must have.
        constrain: what happens to the map at last, `Task.constrain`; by default nothing.

    Returns:
        The module in an `Adapter`, its parameters named `model.` and on; an `Adapter` is not wrapped again.
    """
    if isinstance(model, Adapter) and model.channels == channels:
        return model if constrain in (None, model.constrain) else Adapter(model.model, channels, constrain)
    return Adapter(model, channels, constrain)


def make_model(
    target: Callable[..., nn.Module],
    in_channels: int,
    channels: int,
    constrain: Constrain | None = None,
    /,
    **options: Any,
) -> Adapter:
    """Make a task model from any class or function that makes modules.

    Args:
        target: called with the options and, under the names its signature has for them, the two numbers of channels.
        in_channels: channels of the images.
        channels: channels of the output.
        constrain: what happens to the output at last, `Task.constrain`; by default nothing.
        **options: keyword arguments of `target`; one that names a number of channels has the last word. The other
            arguments are positional, so that an option may have any name.

    Returns:
        The adapted module.

    Raises:
        SemipixError: the options do not fit the signature, or no module comes out.
    """
    name = getattr(target, "__name__", type(target).__name__)
    signature = _signature(target)
    for names, value in ((IN_CHANNELS, in_channels), (CHANNELS, channels)):
        named = next((candidate for candidate in names if candidate in signature.parameters), None)
        if named is not None:
            options.setdefault(named, value)
    try:
        signature.bind(**options)
    except TypeError as error:
        takes = ", ".join(signature.parameters)
        raise SemipixError(f"model: {name} cannot be made: {error}; it takes {takes}; mend the keys of model") from None
    model = target(**options)
    if not isinstance(model, nn.Module):
        raise SemipixError(
            f"model: {name} made a {type(model).__name__}, expected a torch.nn.Module; let model._target_ name a class"
            " of modules or a function that returns one"
        )
    return adapt(model, channels, constrain)


def _signature(target: Callable[..., nn.Module]) -> inspect.Signature:
    """The keyword arguments that a call of the target takes.

    A class's own `__init__` is asked first: where a base class has a general `__new__`, inspect would report that one.
    """
    if not inspect.isclass(target) or target.__init__ is object.__init__:
        return signature_of(target)
    signature = signature_of(target.__init__)
    return signature.replace(parameters=list(signature.parameters.values())[1:])
