"""Trainings on real data that are compared by their test metrics."""
