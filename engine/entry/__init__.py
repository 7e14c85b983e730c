"""The doors: the Python API, the command line. They assemble concrete parts, and decide nothing."""
