"""Tests what semipix promises when something goes wrong: damaged images, kills, full disks, tampered folders.

`python -m benchmarks.reliability` runs all sections; docs/reliability.md describes the promises and the sections.
"""
