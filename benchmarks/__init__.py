"""What semipix costs (`speed`), how well it does (`accuracy`), the records of both and the tables made of them.

Each script is a module and runs from the root of the repository: `python -m benchmarks.speed.step --help`.
"""
