"""The errors a user can cause, so that the command line can tell them from bugs."""


class DatasetError(Exception):
    """A file or a data set is not what it should be: says what, where, and what to do."""


class UsageError(ValueError):
    """Something was asked for that cannot be done: an argument or a flag, a name, an environment variable."""


class WorkerError(UsageError):
    """A worker process died; what is finished stays, and the command can go on from there."""
