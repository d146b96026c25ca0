"""Which faults are there, and who acts on each?

Expected outcomes (a duplicate, a withheld or rejected event) are values, not exceptions. A fault
is an exception, one class for each reaction:

    StreamError
    ├── StoreUnavailable   wait and retry in place; stall rather than skip
    ├── StoreRefused       our bug or a broken promise: stop the process, commit nothing
    │   └── PersonTooLarge nothing can be said of this one person: go on with all others
    └── SettingInvalid     before start: name the setting, exit with code 2
"""


class StreamError(Exception):
    """Something failed that is not an expected outcome of an event."""


class StoreUnavailable(StreamError):
    """A server did not answer; nothing is known to be wrong with what we asked of it."""


class StoreRefused(StreamError):
    """A server understood and said no, or a log or store is not where it promised to be."""


class PersonTooLarge(StoreRefused):
    """One person has more identifiers than can be reached; the message says what to do."""


class SettingInvalid(StreamError):
    """A setting is missing, unknown or of the wrong type; the message names it and the remedy."""
