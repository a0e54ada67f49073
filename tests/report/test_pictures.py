"""Pictures in pages. Rows of them are in test_demo.py."""

import base64
import io

import numpy as np
import torch
from PIL import Image

from semipix.report.pictures import png_uri


def test_a_small_picture_is_enlarged_without_new_values() -> None:
    picture = torch.randint(256, (3, 5, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    kind, _, data = png_uri(picture, side=20).partition(",")
    assert kind == "data:image/png;base64"
    found = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert found.shape == (20, 32, 3)
    assert np.array_equal(found[1::4, 2::4], picture.permute(1, 2, 0))
