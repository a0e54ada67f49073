"""A UNet whose encoder keeps out of autocast: which part of a network bfloat16 hurts."""

import torch
from torch import Tensor

from semipix.models.smp import SMP


class Float32Encoder(SMP):
    """A UNet whose encoder computes in float32, whatever precision is set; the decoder follows it."""

    def features(self, image: Tensor) -> list[Tensor]:
        with torch.autocast(image.device.type, enabled=False):
            return super().features(image.float())
