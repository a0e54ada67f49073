"""Whether semipix keeps its word where everything goes wrong: damaged images, kills, full disks, hostile folders.

`python -m benchmarks.reliability` runs all sections; docs/reliability.md says what they count.
"""
