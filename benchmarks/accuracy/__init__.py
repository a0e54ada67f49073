"""Trainings whose metrics are compared."""
