"""Errors that a user can act on: each message names the key, file or package at fault."""


class CldmrayError(Exception):
    """Base of every error that cldmray raises on purpose."""


class ConfigError(CldmrayError):
    """A configuration key or value is wrong; the message names the key."""


class BadInputError(CldmrayError):
    """Input data cannot be audited; the message names the file, table or identity."""


class MissingDependencyError(CldmrayError):
    """An optional package is needed and absent; the message says what to install."""


class StorageError(CldmrayError):
    """Files cannot be written; the message names the place, the reason and what to do."""
