"""Pure functions of the methods: flaw maps, ramp-ups, moving averages, gradient routing."""
