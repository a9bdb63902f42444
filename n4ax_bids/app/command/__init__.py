"""The command line: flags, words, configuration files."""
