"""Errors whose message is meant for the user: the command line prints them without a traceback."""


class RegBenchError(Exception):
    """Base of the errors that name a file or field and say what was expected."""


class DataError(RegBenchError, ValueError):
    """Data that is missing, unreadable or does not fit."""


class ConfigError(RegBenchError, ValueError):
    """A suite, a method or an option that cannot be used as written."""
