"""The project's tests: their fixtures, the databases that they reach, and what one test leaves for the next."""
