"""All sections by name, in the order in which they run."""

from benchmarks.reliability import (
    company,
    full_disk,
    images,
    interrupts,
    kills,
    overrides,
    shards,
    tampered,
)
from benchmarks.reliability.outcomes import Section

ALL: dict[str, Section] = {
    module.SECTION.name: module.SECTION
    for module in (images, overrides, kills, interrupts, company, full_disk, tampered, shards)
}
