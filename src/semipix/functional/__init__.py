"""Pure functions of methods and tasks: flaw maps, ramp-ups, moving averages, gradient routing, resizing, errors."""
