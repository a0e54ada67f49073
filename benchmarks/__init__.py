"""Measurements of semipix: `accuracy`, `speed` and `reliability`, their `results`, and tables made from them.

Each script is a module. Run it from the root of the repository: `python -m benchmarks.speed.step --help`.
"""
