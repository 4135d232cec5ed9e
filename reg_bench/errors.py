"""Errors whose message is meant for the user: the command line prints them without a traceback."""


class RegBenchError(Exception):
    """Base of the errors that name a file or field and say what was expected."""


class DataError(RegBenchError, ValueError):
    """Data that is missing, unreadable or does not fit."""


class ConfigError(RegBenchError, ValueError):
    """A suite, a method or an option that cannot be used as written."""


class TrainingError(RegBenchError, RuntimeError):
    """A training that cannot go on."""


class MissingExtraError(RegBenchError, ImportError):
    """An optional package that a dataset or method needs is not installed; the text holds the pip command.

    In a suite the cases concerned become `skipped` rows and the run goes on.
    """

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(f"{what} needs {package}: pip install 'regbench-suite[{extra}]'")
