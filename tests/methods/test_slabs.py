"""Computing an image in slabs of rows gives the same predictions and metrics as computing it whole.

Also tests functional/rows.py.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from semipix.batch import EvalSample
from semipix.data.files.sizes import Size
from semipix.functional import grouping as batches
from semipix.functional import rows as blocks
from semipix.methods import slabs
from semipix.methods.base import Evidence
from semipix.methods.slabs import Slabs, measured_halo, slabs_of
from semipix.tasks.base import Task
from semipix.tasks.denoising import Denoising
from semipix.tasks.segmentation import Segmentation
from semipix.training.learner import Learner
from tests.conftest import Result
from tests.helpers.tiny import CLASSES, make_method, rand, randint

Command = Callable[..., Result]
CPU = torch.device("cpu")


@pytest.mark.parametrize("size", [(6000, 6000), (65, 4000), (1000, 100_000), (4000, 3000)])
def test_slabs_cover_the_image_once_with_their_halo(size: Size) -> None:
    found = slabs_of(size, 5_000_000, 128)
    assert [row for slab in found for row in slab.kept] == list(range(size[0]))
    for computed, kept in found:
        assert computed.start % slabs.STEP == 0
        assert computed.start == max(0, kept.start - 128)
        assert computed.stop == min(size[0], kept.stop + 128)
        assert len(computed) * size[1] <= 5_000_000 or len(kept) <= slabs.STEP


@pytest.mark.parametrize("name", ["supervised", "gct", "advssl"])
def test_outputs_and_flaw_maps_are_those_of_the_whole_image(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "HALOS", (128,))
    monkeypatch.setitem(slabs.PIXELS_AT_ONCE, "cpu", 64 * (64 + 2 * 128))
    method = make_method(name).eval()
    image = rand(3, 397, 64)

    def maps_of(images: Tensor) -> slabs.Maps:
        evidence = method.evidence(images)
        return *evidence.predictions, evidence.flaw

    with torch.inference_mode():
        whole = maps_of(image[None])
        found = list(zip(*Slabs(method).compute(image, maps_of), strict=True))
    assert len(found[0]) == 7
    for maps, parts in zip(whole, found, strict=True):
        if maps is not None:
            torch.testing.assert_close(torch.cat(parts, 2), maps, rtol=0, atol=2e-6)
    assert all(module.window is None for module in method.modules() if hasattr(module, "window"))


class Far(nn.Module):
    """The output depends on the pixel `rows` below; with None, on the mean of all pixels."""

    def __init__(self, rows: int | None) -> None:
        super().__init__()
        self.rows = rows
        self.weight = nn.Parameter(torch.ones(1, CLASSES, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        seen = image.mean((2, 3), keepdim=True) if self.rows is None else image.roll(-self.rows, 2)
        return self.weight * (image + seen)[:, :1]


@pytest.mark.parametrize(
    ("rows", "halo"), [(10, 192), (240, 256), (300, 384), (500, 384), (slabs.FAR + 40, None), (None, None)]
)
def test_the_halo_is_as_far_as_the_network_sees(rows: int | None, halo: int | None) -> None:
    method = make_method("supervised", lambda number: Far(rows)).eval()
    assert measured_halo(method, CPU) == halo
    if halo is None:
        assert not Slabs(method).applies((10**5, 10**5))


def test_a_module_may_say_that_it_sees_the_whole_image() -> None:
    method = make_method("supervised").eval()
    assert Slabs(method).applies((10**5, 10**5))
    method.model.whole_image = True  # type: ignore[union-attr]
    assert not Slabs(method).applies((10**5, 10**5))


class Centred:
    """An error map that needs the mean of the whole image."""

    name = "centred"

    def parts(self, task: Task, evidence: Evidence, image: Tensor) -> tuple[Tensor, Tensor]:
        disagreement = task.disagreement(*evidence.predictions)
        return 10 * disagreement, disagreement

    def constant(self, means: Tensor) -> Tensor:
        return -10 * means[:, 0]

    def values(self, scores: Tensor) -> Tensor:
        return scores.sigmoid()


@pytest.mark.parametrize("task", [Segmentation(CLASSES), Denoising()], ids=["labels", "images"])
@pytest.mark.parametrize("size", [(96, 40), (131, 40)])
def test_figures_of_a_large_image_are_those_of_the_whole(
    task: Task, size: Size, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = randint(CLASSES, *size) if task.classification else rand(3, *size, seed=1)
    sample = EvalSample(rand(3, 96, 40), target, "a")
    found = []
    candidate = "first"  # the deployed one
    for pixels in (10**6, 2000):
        monkeypatch.setattr(slabs, "HALOS", (64,))
        monkeypatch.setitem(slabs.PIXELS_AT_ONCE, "cpu", pixels)
        method = make_method("cps", task=task).eval()
        learner = Learner(method, optimizer=functools.partial(SGD, lr=0.1))
        learner.on_test_epoch_start()
        learner.written = lambda evidence: Centred()
        with torch.inference_mode():
            learner.validation_step([sample], 0)
            metrics: list[Any] = [learner.candidate_metrics[candidate], learner.error_metrics[candidate]]
            figures = metrics[0].compute() | metrics[1].compute()
            found.append({name: float(value) for name, value in figures.items()})
        monkeypatch.setattr(blocks, "BLOCK_BYTES", 4 * 40 * 3 * 10)
    assert learner.large.slabs.images == 1
    exact = {name for name in found[0] if task.classification and "/" not in name}
    assert {name: found[1][name] for name in exact} == {name: found[0][name] for name in exact}
    # A score at the border of two bins may be in either of them, since slabs round differently.
    assert found[1] == pytest.approx(found[0], rel=1e-4, nan_ok=True)
    assert {"disagreement", "map"} <= {name.partition("/")[0] for name in found[0]}


def written(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


def test_commands_give_the_same_in_slabs(
    command: Command, finished: Path, shared_photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = shared_photos / "images/test"
    whole = command("predict", finished, images, "--out", "whole")
    figures = command("evaluate", finished)
    assert "slabs" not in whole.err + figures.err
    monkeypatch.setattr(slabs, "STEP", 8)
    for device in ("cpu", "cuda"):
        monkeypatch.setitem(slabs.PIXELS_AT_ONCE, device, 64 * 24)
        monkeypatch.setitem(batches.BATCH_PIXELS, device, 64 * 24)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 5000)
    monkeypatch.setattr(
        slabs, "measured_halo", lambda *given: 8
    )  # enough: the flaw detector hardly depends on more distant rows
    parts = command("predict", finished, images, "--out", "parts")
    line = "semipix: 2 images of more than 1536 pixels were computed in slabs of rows, to bound memory"
    assert line in parts.err.splitlines()
    found, wanted = written(Path("parts")), written(Path("whole"))
    assert found.keys() == wanted.keys()
    for kind in ("masks", "pictures"):
        assert all(found[name] == wanted[name] for name in wanted if name.startswith(kind))
    measured = command("evaluate", finished)
    assert line in measured.err.splitlines()
    # The flaw map, also as a cue of the written map, depends on rows beyond this halo.
    assert [line for line in measured.out.splitlines() if not line.startswith(("flaw", "map"))] == [
        line for line in figures.out.splitlines() if not line.startswith(("flaw", "map"))
    ]
