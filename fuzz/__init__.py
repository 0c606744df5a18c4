"""Coverage-guided fuzzing of what reads bytes from outside. See the README beside this file."""
