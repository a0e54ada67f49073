"""Pictures in pages: which images, which part, and that they are those of the evaluation."""

import base64
import io
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from semipix.batch import VOID, EvalSample
from semipix.data.files.bands import Bands
from semipix.data.sources.scenes import ScenesSource
from semipix.functional import rows
from semipix.methods import slabs
from semipix.methods.large_images import LargeImages
from semipix.methods.tiles import Tiling
from semipix.report import pictures
from semipix.report.pictures import (
    Predicted,
    Trained,
    chosen,
    data_uri,
    differing_part,
    gallery,
    marked,
    predict,
    with_frame,
)
from semipix.tasks.matting import Matting
from semipix.tasks.segmentation import Segmentation
from semipix.training.calibration import uncalibrated
from semipix.training.run_folder import load_split
from tests.helpers.tiny import make_method, rand, randint


def test_the_worst_the_median_and_the_best_image_are_chosen() -> None:
    figures = {f"i{number}": number / 10 for number in (4, 2, 0, 1, 3)} | {"void": math.nan}
    assert list(chosen(figures, True, "mIoU").values()) == ["i0", "i2", "i4"]
    assert list(chosen(figures, False, "RMSE").values()) == ["i4", "i2", "i0"]
    assert next(iter(chosen(figures, True, "mIoU"))) == "worst: i0, mIoU 0"
    assert len(chosen(figures, True, "mIoU", each=2)) == 3, "5 images are not enough for two of each"
    many = {f"i{number}": float(number) for number in range(8)}
    assert list(chosen(many, True, "mIoU", each=2).values()) == ["i0", "i1", "i3", "i4", "i6", "i7"]
    assert list(chosen({"a": 1.0, "b": 2.0}, True, "mIoU").values()) == ["a", "b"]
    assert list(chosen({"a": 1.0}, True, "mIoU").values()) == ["a"]
    assert chosen({}, True, "mIoU") == {}


def test_the_frame_is_around_the_largest_difference() -> None:
    weight = np.zeros((40, 80), np.float32)
    weight[22:30, 41:59] = 1
    top, left, bottom, right = differing_part(weight) or (0, 0, 0, 0)
    assert (bottom - top, right - left) == (10, 20)
    assert top <= 22 and bottom >= 30 and left <= 41 and right >= 59
    assert differing_part(np.zeros((5, 5), np.float32)) is None
    framed = np.asarray(with_frame(Image.new("RGB", (80, 40)), (top, left, bottom, right)))
    assert framed[top, left].tolist() == framed[bottom - 1, right - 1].tolist() == list(pictures.RED)
    assert not framed[top + 3, left + 3].any()


def test_wrong_pixels_are_red_and_others_grey() -> None:
    wrong = np.zeros((4, 4), np.float32)
    wrong[1, 2] = 1
    found = np.asarray(marked(Image.new("RGB", (4, 4), (10, 200, 30)), wrong))
    assert found[1, 2].tolist() == list(pictures.RED)
    assert len(set(found[0, 0].tolist())) == 1


def test_a_picture_is_in_its_address_and_is_not_larger_than_needed() -> None:
    small = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 32, 3), np.uint8))
    kind, _, data = data_uri(small).partition(",")
    assert kind == "data:image/webp;base64"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), np.asarray(small)), "no loss"
    for size, expected in (((1600, 400), (320, 80)), ((300, 960), (150, 480)), ((100, 90), (100, 90))):
        assert pictures._reduced(torch.zeros(3, size[1], size[0], dtype=torch.uint8)).size == expected
        assert pictures._reduced_values(torch.zeros(size[1], size[0])).shape == expected[::-1]


@pytest.mark.parametrize("parts", ["whole", "slabs", "tiles"])
def test_errors_are_those_of_the_labels_at_their_own_size(parts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of an image that is computed in parts, and of a label whose rows come in several blocks."""
    method = make_method("gct").eval()
    image, target = rand(3, 300, 64), randint(3, 450, 96, seed=1)
    target[:5] = VOID
    tiling = Tiling(64, 0) if parts == "tiles" else None
    with torch.inference_mode():
        tiles = image.split(64 if tiling else 300, 1)
        output = torch.cat([method.evidence(tile[None]).output for tile in tiles], 2)
        softmax = torch.cat([1 - method.evidence(tile[None]).predictions[0].amax(1, keepdim=True) for tile in tiles], 2)
        predicted = method.task.activate(output)
        prediction = torch.nn.functional.interpolate(predicted, target.shape, mode="bilinear")
        softmax = torch.nn.functional.interpolate(softmax, target.shape, mode="bilinear")
        if parts == "slabs":
            monkeypatch.setattr(slabs, "HALOS", (128,))
            monkeypatch.setitem(slabs.PIXELS_AT_ONCE, "cpu", 64 * 300 - 1)
            monkeypatch.setattr(rows, "BLOCK_BYTES", 2**17)
        large = LargeImages(method, tiling=tiling)
        trained = Trained(method, lambda found: uncalibrated(method, found), large)
        found = predict(trained, EvalSample(image, target, "a"))
    assert (large.slabs.images, large.tiles.images) == (int(parts == "slabs"), int(parts == "tiles"))
    wrong = prediction[0].argmax(0) != target
    wrong[:5] = False
    assert 0.2 < float(wrong.float().mean()) < 0.95
    assert float((found.error.bool() != wrong).float().mean()) < 1e-3
    assert found.error_map is not None
    torch.testing.assert_close(found.error_map, softmax[0, 0], atol=1e-4, rtol=0)
    decided = torch.ones(150, 32, dtype=torch.bool)
    decided[100:, :20] = False
    masked = predict(trained, EvalSample(image, target, "a"), decided).error_map
    assert masked is not None
    assert not masked[300:, :60].any(), "0 where the network decides nothing, as in the files of predict"
    assert torch.equal(masked[:300], found.error_map[:300])
    assert torch.equal(masked[:, 60:], found.error_map[:, 60:])
    assert found.image.shape == found.label.shape == found.prediction.shape == (3, 450, 96)
    assert not found.label[:, :5].any(), "black where the label says nothing"
    label = method.task.render(found.image / 255, method.task.encode(target[None])[0])
    torch.testing.assert_close(found.label[:, 5:].int(), label[:, 5:].int(), atol=1, rtol=0)


def test_the_network_decides_what_is_unknown_or_has_a_value() -> None:
    class One(ScenesSource):
        def image(self, name: str, seed: int | None = None) -> tv_tensors.Image:
            return tv_tensors.Image(pixels)

    pixels, source = rand(4, 8, 6), One(size=32, train=2, val=1, test=1)
    assert pictures._decided(Segmentation(3), source, "a") is None
    pixels[3] = 1
    pixels[3, 2:4] = 0.5
    rows = torch.zeros(8, 6, dtype=torch.bool)
    rows[2:4] = True
    torch.testing.assert_close(pictures._decided(Matting(), source, "a"), rows)
    source.bands = Bands.of("all", [0, 1])
    pixels[1, 2:4] = math.nan
    torch.testing.assert_close(pictures._decided(Segmentation(3), source, "a"), ~rows)


def test_each_run_sees_an_image_as_its_own_configuration_reads_it(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []

    def spied(trained: Trained, sample: EvalSample, decided: Tensor | None) -> Predicted:
        seen.append(tuple(sample.image.shape))
        return predict(trained, sample, decided)

    monkeypatch.setattr(pictures, "predict", spied)
    small = Path(shutil.copytree(finished, finished.parent / "small"))
    config = yaml.safe_load((small / "config.yaml").read_text())
    config["data"]["resize"] = [32, 48]
    (small / "config.yaml").write_text(yaml.safe_dump(config))
    name = load_split(finished).test[0]
    (row,) = gallery({"a": finished, "b": small, "c": finished}, {"worst": name, "best": "nowhere.png"}, trust=True)
    assert seen[1] == (3, 32, 48)
    assert seen[0] == seen[2] != seen[1]
    assert row.pictures["a"] == row.pictures["c"] != row.pictures["b"]
