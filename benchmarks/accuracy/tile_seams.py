"""How many labels of a large image change if it is computed in tiles?

Photographs are put together to a square mosaic. A trained network predicts it whole and in tiles of several sizes, and
the labels that differ are counted.

    python -m benchmarks.accuracy.tile_seams RUN PHOTOS --json benchmarks/results/tile_seams.json
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common import Record, new_parser, run, write_records
from semipix.data.files.decode import read_image
from semipix.errors import SemipixError
from semipix.inference.files import find_images
from semipix.launch.variants import environment
from semipix.methods.base import Method
from semipix.methods.tiles import Tiles, Tiling
from semipix.training.build import trained_method
from semipix.training.run_folder import load_config

PHOTOS = 8
"""Photographs along each side of the mosaic."""

SIDE = 250
"""Side of a photograph in it, in pixels."""

TILINGS = (Tiling(512, 64), Tiling(512, 128), Tiling(512, 256), Tiling(1024, 256), Tiling(1024, 384))


def mosaic(folder: Path, photos: int = PHOTOS, side: int = SIDE) -> Tensor:
    """The first photographs of a folder as one image (3, H, W) in [0, 1].

    Raises:
        SemipixError: there are too few.
    """
    files = [path for path, _ in find_images([folder]).files][: photos**2]
    if len(files) < photos**2:
        raise SemipixError(f"{folder}: {len(files)} images found, {photos**2} expected")
    parts = [F.interpolate(read_image(path)[None], (side, side), mode="bilinear")[0] for path in files]
    rows = [torch.cat(parts[start : start + photos], dim=2) for start in range(0, photos**2, photos)]
    return torch.cat(rows, dim=1)


@torch.inference_mode()
def changed(method: Method, image: Tensor, tiling: Tiling) -> float:
    """The share of the labels of an image that are others in tiles."""
    whole = method(image[None]).argmax(1)
    parts = Tiles(tiling, image.device).compute(image, lambda tile: (method(tile),))
    tiled = torch.cat([maps.argmax(1) for (maps,) in parts if maps is not None], dim=1)
    return float((tiled != whole).float().mean())


def main() -> None:
    parser = new_parser("accuracy.tile_seams", __doc__)
    parser.add_argument("run", type=Path, help="a run of segmentation")
    parser.add_argument("photos", type=Path, help="folder of photographs")
    given = parser.parse_args()
    method = trained_method(load_config(given.run), given.run).eval()
    image = mosaic(given.photos)
    records: list[Record] = []
    for tiling in TILINGS:
        records.append(
            {**tiling._asdict(), "pixels": list(image.shape[-2:]), "changed": changed(method, image, tiling)}
        )
        print(
            f"tiles of {tiling.tile}, overlap {tiling.overlap}: {100 * records[-1]['changed']:.2f} % other labels",
            flush=True,
        )
    write_records(given.json, records, environment())


if __name__ == "__main__":
    run(main)
