"""The problem set that ships with the package: our own statements, tests and solutions."""
