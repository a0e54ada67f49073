"""Make a task model, (N, C_in, H, W) -> (N, K, H, W), of any module."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semipix.errors import SemipixError, reason_of
from semipix.models.checkpointing import Part, checkpointed
from semipix.signatures import inspected

BAND_NAMES = ("band_mean", "band_std")
"""Parameters of constructors that get the mean and the standard deviation of each band."""

IN_CHANNEL_NAMES = ("in_channels", "in_chans", "num_channels")
"""Names of a constructor's parameter for the image's channels; the first one that a signature has is used."""

CHANNEL_NAMES = ("num_classes", "classes", "num_labels", "out_channels", "channels")
"""Names of a constructor's parameter for the output's channels, likewise; `channels` is last, it may be a width."""

_ABOUT_SHAPES = re.compile(r"\b(shapes?|sizes?|channels?|dimensions?|height|width|elements)\b", re.IGNORECASE)
"""Words in the errors of torch and other libraries about a tensor's shape."""

_NOT_ABOUT_SHAPES = ("more than 1 value per channel",)
"""Errors that contain such words for another reason; they are explained elsewhere."""

Returned = TypeVar("Returned")

Constrain = Callable[[Tensor, Tensor], Tensor]
"""Outputs (N, K, H, W) and images (N, C_in, H, W) to outputs that agree with what the images determine."""


class ModelShapeError(SemipixError, RuntimeError):
    """A network cannot take images of this shape, or does not return one map for each image."""


class FeatureModel(Protocol):
    """The feature protocol: what a task model offers to methods that work on its feature maps (cct, unimatch).

    `forward(image)` equals `head(features(image), image.shape[-2:])`.
    """

    def features(self, image: Tensor) -> list[Tensor]:
        """Feature maps (N, C_i, H_i, W_i) of images (N, C_in, H, W), finest first; at least one."""

    def head(self, features: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Feature maps, changed or not, to outputs (N, K, H, W) of images of this height and width."""


def features_of(model: nn.Module) -> FeatureModel:
    """The model, typed as a model that follows the feature protocol.

    Raises:
        SemipixError: the model has no method `features` or no method `head`.
    """
    for name in ("features", "head"):
        if not inspect.ismethod(getattr(model, name, None)):
            raise SemipixError(
                f"model: {type(model).__name__} has no method {name!r}, and the training method works on feature maps; "
                "take model=unet, pspnet or deeplab_v2, or give the module features(image) -> [maps, finest first] and "
                "head(features, size) -> output"
            )
    return cast(FeatureModel, model)


class Adapter(nn.Module):
    """A task model made of any module.

    Args:
        model: the module. It may return a tensor, a mapping with "out" (torchvision), an object with `logits`
            (transformers), or a list or tuple whose first element is the map; maps of another size than the image are
            resized bilinearly.
        channels: channels K that the map must have.
        constrain: `Task.constrain`, applied to the map; by default the map is not changed.

    Attributes:
        recompute: whether training computes the module again in the backward pass instead of keeping its activations,
            so that only one of several task models needs memory for them at a time.
        normalises_bands: whether the module was made with the statistics of the images' bands.
    """

    def __init__(self, model: nn.Module, channels: int, constrain: Constrain | None = None) -> None:
        super().__init__()
        self.model = model
        self.channels = channels
        self.constrain = constrain
        self.recompute = False
        self.normalises_bands = False

    def forward(self, image: Tensor) -> Tensor:
        """Images (N, C_in, H, W) to outputs (N, K, H, W).

        Raises:
            SemipixError: the module did not return N maps of K channels, or cannot take images of this shape.
        """
        twice = self.recompute and self.training
        returned = self._run(lambda: checkpointed(self.model, image) if twice else self.model(image), image)
        output = self._fitted(returned, image.shape[-2:])
        if output.shape[0] != image.shape[0]:  # not by len(), which an export takes for a constant
            raise ModelShapeError(
                f"model: {self._name} returned {len(output)} maps {tuple(output.shape)} for {len(image)} images "
                f"{tuple(image.shape)}; expected one for each; the model has to keep the first dimension"
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
        """Feature maps, changed or not, to outputs (N, K, H, W) of images of this height and width.

        The outputs are not constrained, since that needs the images: the method calls `Task.constrain`.
        """
        return self._fitted(features_of(self.model).head(features, size), size)

    def _run(self, run: Callable[[], Returned], image: Tensor) -> Returned:
        """Call the module.

        Raises:
            ModelShapeError: the module raised an error about the shape of the images. Its other errors pass through.
        """
        if torch.compiler.is_compiling():
            return run()
        try:
            return run()
        except torch.OutOfMemoryError:
            raise
        except (TypeError, ValueError, RuntimeError, AssertionError) as error:
            why = reason_of(error)
            if not _ABOUT_SHAPES.search(why) or any(other in why for other in _NOT_ABOUT_SHAPES):
                raise
            raise ModelShapeError(
                f"model: {self._name} cannot take images of shape {tuple(image.shape)}: {why}; check its channels, "
                "and data.crop and data.resize for the sizes it takes"
            ) from error

    def _fitted(self, returned: object, size: Sequence[int]) -> Tensor:
        """The map in what the module returned, resized to the image's size.

        Raises:
            ModelShapeError: it does not have 4 dimensions, or another number of channels than the task.
        """
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
        """The module's own groups with their `lr_scale`, or one group of all parameters."""
        groups = getattr(self.model, "parameter_groups", None)
        if groups is None:
            return [{"params": list(self.model.parameters()), "lr_scale": 1.0}]
        own: list[dict[str, Any]] = groups()
        return own

    @property
    def _name(self) -> str:
        return type(self.model).__name__

    def _map(self, output: object) -> Tensor:
        """The map in what the module returned.

        Raises:
            SemipixError: no tensor is where `Adapter` documents it.
        """
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
    """Make a task model of a module.

    Args:
        model: any module that maps images (N, C_in, H, W) to maps.
        channels: channels K that the map must have.
        constrain: `Task.constrain`, applied to the map; by default the map is not changed.

    Returns:
        An `Adapter` around the module, whose parameters' names get the prefix `model.`; an `Adapter` is not wrapped
        again.
    """
    if isinstance(model, Adapter) and model.channels == channels:
        return model if constrain in (None, model.constrain) else Adapter(model.model, channels, constrain)
    return Adapter(model, channels, constrain)


def make_model(
    target: Callable[..., nn.Module],
    in_channels: int,
    channels: int,
    constrain: Constrain | None = None,
    bands: tuple[Sequence[float], Sequence[float]] | None = None,
    /,
    **options: Any,
) -> Adapter:
    """Make a task model from any class or function that makes modules.

    Args:
        target: called with the options and with both numbers of channels, if its signature has parameters for them.
        in_channels: channels of the images.
        channels: channels of the output.
        constrain: `Task.constrain`, applied to the output; by default the output is not changed.
        bands: mean and standard deviation of each channel, if the channels are bands and no colours; a target that has
            parameters `band_mean` and `band_std` gets them.
        **options: keyword arguments of `target`; they take precedence over both numbers of channels. The other
            arguments are positional, so that an option may have any name.

    Returns:
        The adapted module.

    Raises:
        SemipixError: the options do not match the signature, or `target` does not return a module.
    """
    name = getattr(target, "__name__", type(target).__name__)
    signature = _signature(target)
    for names, value in ((IN_CHANNEL_NAMES, in_channels), (CHANNEL_NAMES, channels)):
        named = next((candidate for candidate in names if candidate in signature.parameters), None)
        if named is not None:
            options.setdefault(named, value)
    for name_of, numbers in zip(BAND_NAMES, bands or (), strict=False):
        if name_of in signature.parameters:
            options.setdefault(name_of, numbers)
    try:
        signature.bind(**options)
    except TypeError as error:
        takes = ", ".join(signature.parameters)
        raise SemipixError(
            f"model: {name} cannot be made: {error}; it takes {takes}; change the keys of model"
        ) from None
    model = target(**options)
    if not isinstance(model, nn.Module):
        raise SemipixError(
            f"model: {name} made a {type(model).__name__}, expected a torch.nn.Module; let model._target_ name a class"
            " of modules or a function that returns one"
        )
    adapted = adapt(model, channels, constrain)
    adapted.normalises_bands = bands is not None and {*BAND_NAMES} <= signature.parameters.keys()
    return adapted


def _signature(target: Callable[..., nn.Module]) -> inspect.Signature:
    """The keyword arguments that a call of the target takes.

    Of a class it is the signature of `__init__`; `inspect.signature` would prefer a base class's `__new__`.
    """
    if not inspect.isclass(target) or target.__init__ is object.__init__:
        return inspected(target)
    signature = inspected(target.__init__)
    return signature.replace(parameters=list(signature.parameters.values())[1:])
