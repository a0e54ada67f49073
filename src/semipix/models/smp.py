"""Any decoder of segmentation-models-pytorch on any encoder of timm."""

import difflib
import inspect
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semipix.errors import SemipixError, reason_of
from semipix.models.checkpointing import Part, runner
from semipix.models.padding import cropped, pad_to_multiple, padded_size
from semipix.models.pretrained import (
    OFFLINE_ENCODER,
    Normalize,
    check_encoder,
    download,
    input_statistics,
    offline_weights,
    zero_extra_channels,
)


@dataclass(frozen=True)
class Architecture:
    """How semipix uses a decoder of segmentation-models-pytorch.

    Attributes:
        reads: which of the encoder's maps the decoder reads: a tuple of their numbers, or the first number of a range
            to the end; map 0 is the image itself.
        renamed: from semipix's name of an option to the library's name, where they differ.
        defaults: options whose default differs from the library's.
        strides: values that `output_stride` may have.
        depth_from: the option whose length is the encoder's depth, if there is one.
        smallest_map: smallest side of the encoder's last map, in its pixels.
    """

    reads: int | tuple[int, ...] = 1
    renamed: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    strides: tuple[int, ...] = ()
    depth_from: str | None = None
    smallest_map: int = 1


_ATROUS = {"output_stride": "encoder_output_stride", "width": "decoder_channels", "dropout": "decoder_aspp_dropout"}

ARCHITECTURES: dict[str, Architecture] = {
    "unet": Architecture(depth_from="decoder_channels"),
    "unetplusplus": Architecture(depth_from="decoder_channels"),
    "manet": Architecture(depth_from="decoder_channels"),
    "linknet": Architecture(),
    "fpn": Architecture(reads=-4, renamed={"width": "decoder_pyramid_channels", "dropout": "decoder_dropout"}),
    "pspnet": Architecture(
        reads=(-1,),
        renamed={"output_stride": "output_stride", "width": "psp_out_channels", "dropout": "psp_dropout"},
        defaults={"encoder_depth": 5, "output_stride": 8, "psp_dropout": 0.1},  # the whole encoder, as in the paper
        strides=(8, 16),
    ),
    "deeplabv3": Architecture(reads=(-1,), renamed=_ATROUS, strides=(8, 16)),
    "deeplabv3plus": Architecture(reads=(2, -1), renamed=_ATROUS, strides=(8, 16)),
    "pan": Architecture(
        reads=2,
        renamed={"output_stride": "encoder_output_stride", "width": "decoder_channels"},
        strides=(16, 32),
        smallest_map=8,  # the decoder halves it three times
    ),
    "upernet": Architecture(reads=2, renamed={"width": "decoder_channels"}),
    "segformer": Architecture(renamed={"width": "decoder_segmentation_channels"}),
    "dpt": Architecture(renamed={"width": "decoder_fusion_channels"}, depth_from="decoder_intermediate_channels"),
}
"""Decoders by their names in `create_model` of segmentation-models-pytorch."""

COMMON_OPTIONS = ("architecture", "encoder", "pretrained", "checkpointing")
"""Options that every architecture has."""

FILLED_IN = ("self", "encoder_name", "encoder_weights", "in_channels", "classes", "kwargs")
"""Arguments of the library's classes that semipix fills in."""

NOT_OFFERED = ("activation", "aux_params", "upsampling")
"""Arguments of the library's classes that change the kind, the number or the size of the outputs."""

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "area", "nearest-exact")

PATCHES = (4, 8, 16, 32)
"""Patch sizes of Vision Transformers whose maps DPT's decoder can resize to 1/4, 1/8, 1/16 and 1/32 of the image."""

DPT_STRIDE = 32
"""Number that divides the sides of images for `dpt`."""

WHOLE_IMAGE_MODULES = re.compile(
    "Attention|Attn|SqueezeExcite|SEModule|SqueezeAndExcite|EcaModule|GlobalContext|GatherExcite|GlobalResponseNorm"
    "|SelectiveKernel|NonLocal"
)
"""Names of timm's modules whose output at a pixel depends on the whole image, or on the position of windows in it."""


class SMP(nn.Module):
    """A decoder of segmentation-models-pytorch on an encoder of timm, for images of any size.

    Images in [0, 1] are normalised by the encoder's statistics and padded to sides that the encoder can divide; the
    output is cropped to the image's size.

    Args:
        in_channels: channels of the images. Channels after red, green and blue are scaled to [-1, 1], and their
            pretrained weights start at zero, unless all channels are bands (`band_mean`).
        channels: channels of the output.
        architecture: the decoder, a key of `ARCHITECTURES`.
        encoder: name of any timm model with feature maps, e.g. `resnet50` or `convnext_tiny.fb_in22k`; `dpt` takes
            Vision Transformers such as `vit_small_patch16_224`.
        pretrained: start from ImageNet weights. Those of the default encoder come from an installed package, those of
            other encoders are downloaded by timm.
        checkpointing: compute encoder and decoder again in the backward pass instead of keeping their activations;
            `memory=low` sets it.
        band_mean: mean of each channel, if the channels are bands and no colours: images are normalised by it, and the
            pretrained weights of red, green and blue are repeated over the bands and scaled, as timm does. Training
            fills it in.
        band_std: standard deviation of each channel.
        **options: the decoder's options, see `options_of`.

    Raises:
        SemipixError: the architecture, the encoder or an option is unknown, the architecture cannot take this encoder,
            or the pretrained weights cannot be downloaded.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        architecture: str = "unet",
        encoder: str = OFFLINE_ENCODER,
        pretrained: bool = True,
        checkpointing: bool = False,
        band_mean: Sequence[float] | None = None,
        band_std: Sequence[float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.architecture = _library_name(architecture)
        self.title = f"{self.architecture} on {encoder}"
        encoder = encoder.removeprefix("tu-")  # the library's prefix for timm's encoders
        check_encoder(encoder, key="encoder")
        given = _library_options(self.architecture, options)
        given.update(in_channels=in_channels, classes=channels)
        network, any_size = _make_untrained(self.architecture, encoder, given)
        settings = network.encoder.model.pretrained_cfg
        mean, std = input_statistics(encoder, settings)
        if band_mean is not None and band_std is not None:
            mean, std = band_mean, band_std
        if pretrained and encoder == OFFLINE_ENCODER:
            backbone = network.encoder.model
            weights = offline_weights(in_channels)
            backbone.load_state_dict({name: weights[name] for name in backbone.state_dict()})
        elif pretrained:
            network, any_size = download(lambda: _make(self.architecture, encoder, True, given), encoder, key="encoder")
        if pretrained and band_mean is None:
            zero_extra_channels(network.encoder, in_channels)
        self.network: Any = network
        self.normalize = Normalize(in_channels, mean, std)
        self.checkpointing = checkpointing
        stride = DPT_STRIDE if self.architecture == "dpt" else network.encoder.output_stride
        self.multiple: int = stride if any_size else settings["input_size"][-1]
        self.smallest = ARCHITECTURES[self.architecture].smallest_map * stride

    @property
    def whole_image(self) -> bool:
        """Whether the output at a pixel depends on the whole image, so that an image cannot be computed in parts.

        True if the encoder or the decoder pools, normalises or attends over the whole image.
        """
        kinds = nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d | nn.GroupNorm | nn.modules.instancenorm._InstanceNorm
        parts = list(self.network.modules())
        of_timm = (type(part).__name__ for part in parts if type(part).__module__.startswith("timm."))
        return any(isinstance(part, kinds) for part in parts) or any(map(WHOLE_IMAGE_MODULES.search, of_timm))

    def forward(self, image: Tensor) -> Tensor:
        """Images (N, C_in, H, W) in [0, 1] to outputs (N, K, H, W) of unbounded range."""
        return self.head(self.features(image), image.shape[-2:])

    def features(self, image: Tensor) -> list[Tensor]:
        """The encoder's maps that the decoder reads, of images (N, C_in, H, W) in [0, 1], finest first.

        They are maps of the padded image. Those of `dpt` already contain the class token.
        """
        # Repeats edge pixels: zeros would make an edge that is not in the image, and reflection needs large images.
        padded = pad_to_multiple(self.normalize(image), self.multiple, smallest=self.smallest)
        return list(self._run("_encode", padded))

    def head(self, features: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Feature maps to outputs (N, K, H, W) of images of this height and width."""
        padded = tuple(self.padded(size))
        output: Tensor = self._run("_decode", padded, *features)
        if output.shape[-2:] != padded:  # the decoder's upsampling expects an encoder of another depth
            output = F.interpolate(output, size=padded, mode="bilinear", align_corners=False)
        return cropped(output, size)

    def padded(self, size: Sequence[int]) -> list[int]:
        """Height and width of the padded image, for an image of this height and width."""
        return list(padded_size(size, self.multiple, self.smallest))

    def _run(self, name: str, *inputs: Any) -> Any:
        if self.checkpointing and self.training:
            return runner(True)(Part(self, name), *inputs)
        return getattr(self, name)(*inputs)

    def _encode(self, padded: Tensor) -> list[Tensor]:
        if self.architecture == "dpt":
            maps, tokens = self.network.encoder(padded)
            blocks = self.network.decoder.projection_blocks
            return [block(*pair) for block, *pair in zip(blocks, maps, tokens, strict=True)]
        maps = self.network.encoder(padded)
        # Transformers have no map of half the size; the library replaces it by one with 0 channels, which is left out.
        return [maps[number] for number in self._read(len(maps)) if maps[number].shape[1]]

    def _decode(self, padded: Sequence[int], *features: Tensor) -> Tensor:
        decoder = self.network.decoder
        if self.architecture == "dpt":
            pairs = list(zip(decoder.reassemble_blocks, features, strict=True))
            decoded: Any = None
            for fuse, (reassemble, feature) in zip(decoder.fusion_blocks, reversed(pairs), strict=True):
                decoded = fuse(reassemble(feature), decoded)
        else:
            decoded = decoder(self._pyramid(features, padded))
        output: Tensor = self.network.segmentation_head(decoded)
        return output

    def _read(self, count: int) -> list[int]:
        """Numbers of the maps that the decoder reads, if the encoder has `count` maps."""
        reads = ARCHITECTURES[self.architecture].reads
        numbers = list(range(count))
        return numbers[reads:] if isinstance(reads, int) else [numbers[number] for number in reads]

    def _pyramid(self, features: Sequence[Tensor], padded: Sequence[int]) -> list[Tensor]:
        """All of the encoder's maps; those that the decoder does not read have their size but 0 channels."""
        channels = self.network.encoder.out_channels
        given = iter(features)
        read = {number: next(given) for number in self._read(len(channels)) if channels[number]}
        return [
            read[number]
            if number in read
            else features[0].new_empty((features[0].shape[0], 0, *(side >> number for side in padded)))
            for number in range(len(channels))
        ]


def options_of(architecture: str) -> dict[str, Any]:
    """Options of a decoder with their defaults.

    Most have the names of segmentation-models-pytorch. Three have one name here and other names in the library's
    classes: `output_stride` (pixels of the image per pixel of the encoder's last map), `width` (channels of the
    decoder) and `dropout`. If `decoder_channels` is a list, its length is the encoder's depth.

    Raises:
        SemipixError: the architecture is unknown.
    """
    name = _library_name(architecture)
    spec = ARCHITECTURES[name]
    signature = inspect.signature(_class_of(name).__init__).parameters
    hidden = {*FILLED_IN, *NOT_OFFERED, *(("encoder_depth",) if spec.depth_from else ())}
    known = {key: parameter.default for key, parameter in signature.items() if key not in hidden}
    known.update(spec.defaults)
    short = {theirs: ours for ours, theirs in spec.renamed.items()}
    return {short.get(key, key): default for key, default in known.items()}


def _class_of(architecture: str) -> Any:
    return smp.MODEL_ARCHITECTURES_MAPPING[architecture]


def _library_name(architecture: str) -> str:
    """The library's spelling of an architecture's name.

    Raises:
        SemipixError: the architecture is unknown.
    """
    name = architecture.lower().replace("+", "plus")
    if name in ARCHITECTURES:
        return name
    close = difflib.get_close_matches(name, ARCHITECTURES, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(ARCHITECTURES)}"
    raise SemipixError(f"model.architecture={architecture}: there is no such decoder; {hint}")


def _library_options(architecture: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of the library's class.

    Raises:
        SemipixError: the architecture does not have an option, or an option cannot have this value.
    """
    spec, known = ARCHITECTURES[architecture], options_of(architecture)
    for key, value in options.items():
        if key not in known:
            every = sorted((*COMMON_OPTIONS, *known))
            close = difflib.get_close_matches(key, every, n=1)
            hint = f"did you mean {close[0]}?" if close else f"{architecture} takes {', '.join(every)}"
            raise SemipixError(f"unknown key model.{key}; {hint}")
        _check_option(f"model.{key}", value, known[key], spec)
    given = {**spec.defaults, **{spec.renamed.get(key, key): _as_tuple(value) for key, value in options.items()}}
    if spec.depth_from:
        short = {theirs: ours for ours, theirs in spec.renamed.items()}.get(spec.depth_from, spec.depth_from)
        given["encoder_depth"] = len(given.get(spec.depth_from, known[short]))
    if architecture == "fpn" and given.get("encoder_depth", 5) < 4:
        raise SemipixError(f"model.encoder_depth={given['encoder_depth']}: fpn reads 4 maps; set 4 or 5")
    if architecture == "pspnet":
        given["upsampling"] = given["output_stride"]
    return given


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _check_option(key: str, value: Any, default: Any, spec: Architecture) -> None:
    """Check that the value of an option has the type of its default and is in its range.

    Raises:
        SemipixError: the value has another type or is out of range.
    """
    expected = ""
    if key == "model.output_stride":
        if value not in spec.strides or isinstance(value, bool):
            expected = f"{' or '.join(map(str, spec.strides))}; set one of them"
    elif key.endswith("dropout"):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            expected = "a number from 0 to below 1"
    elif key.endswith("interpolation"):
        if value not in INTERPOLATIONS:
            expected = f"one of {', '.join(INTERPOLATIONS)}"
    elif isinstance(default, tuple):
        if not isinstance(value, list | tuple) or not value or not all(map(_is_positive, value)):
            expected = f"a list of positive whole numbers such as {list(default)}"
    elif isinstance(default, bool):
        expected = "" if isinstance(value, bool) else "true or false"
    elif isinstance(default, int):
        expected = "" if _is_positive(value) else "a positive whole number"
    if expected:
        raise SemipixError(f"{key}={value}: expected {expected}")


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _make_untrained(architecture: str, encoder: str, options: dict[str, Any]) -> tuple[Any, bool]:
    """Make the network without pretrained weights; returns what `_make` does.

    Raises:
        SemipixError: the architecture cannot take this encoder, or cannot be made with these options.
    """
    try:
        return _make(architecture, encoder, None, options)
    except (ValueError, ArithmeticError, AssertionError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        reason = reason_of(error, 160)
        _check_options_with_another_encoder(architecture, options, reason)
        problem, examples = _incompatible_encoder(architecture, options)
        raise SemipixError(
            f"model.encoder={encoder}: {problem} ({reason}); use an encoder such as {examples}"
        ) from error


def _incompatible_encoder(architecture: str, options: Mapping[str, Any]) -> tuple[str, str]:
    """Error text for an incompatible encoder, and the names of compatible ones."""
    if architecture == "dpt":
        return "dpt needs a Vision Transformer with patches", "vit_small_patch16_224 or vit_base_patch16_224"
    examples = f"{OFFLINE_ENCODER}, resnet50 or convnext_tiny"
    if ARCHITECTURES[architecture].strides:
        key = ARCHITECTURES[architecture].renamed["output_stride"]
        stride = options.get(key, options_of(architecture)["output_stride"])
        return f"cannot be dilated to output stride {stride}", examples
    return f"gives no pyramid of {options.get('encoder_depth', 5)} feature maps", examples


def _check_options_with_another_encoder(architecture: str, options: dict[str, Any], reason: str) -> None:
    """Check that the options make a network with an encoder that the architecture can take.

    Raises:
        SemipixError: the options make no network with that encoder either.
    """
    try:
        with torch.device("meta"):
            _make(architecture, "vit_tiny_patch16_224" if architecture == "dpt" else "resnet18", None, options)
    except Exception:  # the library does not check its options, so any error may come
        own = {*options} - {"in_channels", "classes", "upsampling"}
        raise SemipixError(
            f"model: {architecture} cannot be made ({reason}); change {', '.join(sorted(own)) or 'its options'}"
        ) from None


def _make(architecture: str, encoder: str, weights: bool | None, options: dict[str, Any]) -> tuple[Any, bool]:
    """The network on a timm encoder, and whether it takes images of other sizes than multiples of its training size.

    Raises:
        ValueError: the architecture is dpt, and its decoder cannot scale maps of the encoder's patch size.
    """
    arguments = {"arch": architecture, "encoder_name": f"tu-{encoder}", "encoder_weights": weights, **options}
    if architecture == "dpt":
        with warnings.catch_warnings():  # the library warns about encoders without a class token
            warnings.simplefilter("ignore", UserWarning)
            network = smp.create_model(**arguments, dynamic_img_size=True)
        patch = network.encoder.output_stride
        if patch not in PATCHES:
            raise ValueError(f"patches of {patch} pixels found, {', '.join(map(str, PATCHES))} expected")
        # The classification layers would get no gradient, with which a distributed training stops.
        read = network.encoder._output_indices
        network.encoder.model.prune_intermediate_layers(read, prune_norm=True, prune_head=True)
        return network, True
    try:
        # Window transformers take only their training size without this option; other encoders do not have it.
        return smp.create_model(**arguments, strict_img_size=False), True
    except TypeError:
        network = smp.create_model(**arguments)
        return network, not network.encoder.model.pretrained_cfg["fixed_input_size"]
