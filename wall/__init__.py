"""The fault wall: named scenarios of failing providers, a seeded schedule, and the wall log as the judge.

`python -m wall --help` tells how to run it; docs/wall.md how to read it.
"""
