"""A model, images and a method that train in milliseconds."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import yaml
from hydra.utils import get_object
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MetricCollection
from torchvision import tv_tensors

import semipix.conf
from semipix.batch import VOID, Batch
from semipix.data.datamodule import SemiSupervisedDataModule
from semipix.data.source import Source
from semipix.data.targets import Target
from semipix.errors import SemipixError
from semipix.methods.base import Method
from semipix.models.flaw_detector import FlawDetector
from semipix.tasks.base import Task
from semipix.tasks.segmentation import Segmentation

CLASSES = 3
SIDE = 32


def options(group: str) -> list[str]:
    """Names of the YAML files in a group of the configuration, without `method=auto`, which trains other methods."""
    found = sorted(path.stem for path in (Path(semipix.conf.__file__).parent / group).glob("*.yaml"))
    return [name for name in found if (group, name) != ("method", "auto")]


def node_of(group: str, name: str) -> dict[str, Any]:
    """The content of the YAML file of an option."""
    node: dict[str, Any] = yaml.safe_load((Path(semipix.conf.__file__).parent / group / f"{name}.yaml").read_text())
    return node


class TinyModel(nn.Module):
    """Two convolutions around a batch norm."""

    def __init__(self, in_channels: int = 3, channels: int = CLASSES, width: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image), image.shape[-2:])

    def features(self, image: Tensor) -> list[Tensor]:
        return [self.norm(self.first(image)).relu()]

    def head(self, features: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        output: Tensor = self.last(features[0])
        return output


class ColourModel(nn.Module):
    """A model whose output is known: class 1 where red is largest, 2 green, 3 blue, 0 where it is dark."""

    def __init__(self, in_channels: int = 3, channels: int = CLASSES) -> None:
        super().__init__()
        self.channels = channels
        self.scale = nn.Parameter(torch.tensor(20.0))

    def forward(self, image: Tensor) -> Tensor:
        dark = torch.full_like(image[:, :1], 0.2)
        never = torch.full_like(dark, -1.0)
        planes = [dark, *image[:, :3].split(1, 1), *[never] * max(0, self.channels - 4)]
        return torch.cat(planes[: self.channels], 1) * self.scale


class FixedModel(nn.Module):
    """Returns its parameter for any image, so that gradients can be read pixel by pixel."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = nn.Parameter(output)

    def forward(self, image: Tensor) -> Tensor:
        return self.output * 1.0


def predict_always(model: nn.Module, label: int) -> None:
    """Make a tiny model predict one class everywhere."""
    with torch.no_grad():
        model.last.weight.zero_()
        model.last.bias.fill_(-20)
        model.last.bias[label] = 20


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def randint(high: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def make_batch(labeled: int = 2, unlabeled: int = 2, void: bool = True, side: int = SIDE) -> Batch:
    """Random images with two strong views; with void, the lower right quarter of each label is void."""
    target = randint(CLASSES, labeled, side, side, seed=1)
    if void:
        target[:, side // 2 :, side // 2 :] = VOID
    return Batch(rand(labeled + unlabeled, 3, side, side), target, rand(2 * unlabeled, 3, side, side, seed=2))


class TinyRegression(Task):
    """Images to images in [0, 1], by mean absolute error; every pixel counts."""

    channels = 3
    mu = 1 / 3
    nu = 1
    primary: ClassVar[str] = "error"
    higher_is_better: ClassVar[bool] = False

    def activate(self, output: Tensor) -> Tensor:
        return output.sigmoid()

    def deactivate(self, prediction: Tensor) -> Tensor:
        return prediction.logit(1e-6)

    def encode(self, target: Tensor) -> Tensor:
        return target

    def valid(self, target: Tensor) -> Tensor:
        return torch.ones_like(target[:, :1], dtype=torch.bool)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return (self.activate(output) - target).abs().mean()

    def metrics(self) -> MetricCollection:
        return MetricCollection({"error": MeanAbsoluteError()})

    def render(self, image: Tensor, prediction: Tensor) -> Tensor:
        return (prediction * 255).round().to(torch.uint8)


def make_regression_batch(labeled: int = 2, unlabeled: int = 2, side: int = SIDE) -> Batch:
    """Random images, targets and strong views."""
    return make_batch(labeled, unlabeled, side=side)._replace(target=rand(labeled, 3, side, side, seed=3))


def method_class(name: str) -> type[Method]:
    """The class that the YAML file of a method names."""
    found: type[Method] = get_object(node_of("method", name)["_target_"])
    return found


def make_method(
    name: str,
    make_model: Callable[[int], nn.Module] | None = None,
    seed: int = 0,
    task: Task | None = None,
    **given: Any,
) -> Method:
    """The method of `semipix/methods/<name>.py` as in its YAML file, on tiny models; a detector's maps are large."""
    torch.manual_seed(seed)
    make_model = make_model or (lambda number: TinyModel())
    method: Method = method_class(name)(task or Segmentation(CLASSES), make_model, **given)  # type: ignore[call-arg]
    if hasattr(method, "detector"):
        speak_up(method.detector)
    return method


def make_active(
    name: str, make_model: Callable[[int], nn.Module] | None = None, task: Task | None = None, **given: Any
) -> Method:
    """A method of whose terms each is above 0: by its `test_options`, and with teachers unlike their students."""
    method = make_method(name, make_model, task=task, **{**method_class(name).test_options, **given})
    for parameters in (value for part, value in method.named_parameters() if part.startswith("teacher")):
        parameters.data += 0.1  # with a teacher equal to the student the terms would be 0
    return method


def works_on_features(name: str) -> bool:
    """Whether a method refuses a model without the feature protocol."""
    try:
        make_method(name, lambda number: nn.Conv2d(3, CLASSES, 1)).losses(make_batch(side=64), epoch=10.0)
    except SemipixError as error:
        assert "has no method 'features'" in str(error)
        return True
    return False


def speak_up(detector: nn.Module) -> None:
    """Make the maps of a new paper's detector large and varied, like a trained one's; maps below 0.1 become 0."""
    if not isinstance(detector, FlawDetector):
        return
    with torch.no_grad():
        detector.convolutions[-1].weight *= 5
        detector.convolutions[-1].bias.fill_(0.5)


class TinySource(Source):
    """Random images in memory, each of another size unless `size` is given; no void.

    Args:
        labeled, unlabeled, val, test: how many images.
        size: height and width of all images.
        label: the class of every pixel; by default random.
    """

    def __init__(
        self,
        labeled: int = 6,
        unlabeled: int = 6,
        val: int = 3,
        test: int = 0,
        size: tuple[int, int] | None = None,
        label: int | None = None,
    ) -> None:
        self.classes: list[str] | None = [f"class {index}" for index in range(CLASSES)]
        self.counts = {"labeled": labeled, "unlabeled": unlabeled, "val": val, "test": test}
        self.size = size
        self.label = label

    def labeled(self) -> list[str]:
        return self._names("labeled")

    def unlabeled(self) -> list[str]:
        return self._names("unlabeled")

    def val(self) -> list[str]:
        return self._names("val")

    def test(self) -> list[str]:
        return self._names("test")

    def image(self, name: str, seed: int | None = None) -> tv_tensors.Image:
        return tv_tensors.Image(rand(3, *self._size(name), seed=self._number(name)))

    def pair(self, name: str, seed: int | None = None) -> tuple[tv_tensors.Image, Target]:
        return self.image(name, seed), self.target(name)

    def target(self, name: str) -> Target:
        """The label of an image."""
        if self.label is not None:
            return tv_tensors.Mask(torch.full(self._size(name), self.label))
        return tv_tensors.Mask(randint(CLASSES, *self._size(name), seed=self._number(name)))

    def _names(self, part: str) -> list[str]:
        return [f"{part}/{number}" for number in range(self.counts[part])]

    def _number(self, name: str) -> int:
        part, number = name.split("/")
        return 100 * list(self.counts).index(part) + int(number)

    def _size(self, name: str) -> tuple[int, int]:
        number = self._number(name)
        return self.size or (SIDE + number % 5, SIDE + 3 * (number % 4))


def make_data(method: Method, source: Source | None = None, **given: Any) -> SemiSupervisedDataModule:
    """A data module that reads in the main process, with four images a step."""
    settings = {"labels": "all", "val": 0, "crop": SIDE, "workers": 0, "batch_size": 4, **given}
    return SemiSupervisedDataModule(source or TinySource(), use_unlabeled=method.uses_unlabeled, **settings)
