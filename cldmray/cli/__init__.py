"""The command line: composes a configuration, runs it, and ends with an exit status."""
