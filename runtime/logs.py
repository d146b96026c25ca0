"""How does a role say what it does?

One line an occurrence, as fields (topic, partition, offset, event_id): JSON where a machine reads,
plain where a person does. Never a value of a person: ids and lengths only.
"""

import logging
import sys
import traceback

import structlog


def configure_logs(*, role: str, as_json: bool, level: int = logging.INFO) -> None:
    """Send all logging of this process to stderr. Debug output of libraries is cut off early.

    Faust formats its debug lines even when nobody reads them: disabling the level altogether was
    worth 12-15% of throughput (ADR 0001).
    """
    logging.disable(logging.DEBUG)
    logging.basicConfig(handlers=[_LibraryLines()], level=logging.WARNING, force=True)
    renderer = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    structlog.contextvars.bind_contextvars(role=role)


class _LibraryLines(logging.Handler):
    """What a library says becomes one line like ours: its first, and where an exception arose.

    Whole tracebacks of a store that is away would repeat what our own line says, thirty lines at a
    time; and the text of an exception may quote what it choked on.
    """

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage().strip().partition("\n")[0][:400]
        where: dict[str, str] = {}
        if record.exc_info and record.exc_info[0] is not None:
            where["exception"] = record.exc_info[0].__name__
            frames = traceback.extract_tb(record.exc_info[2])
            # The last few: the innermost is often a library's, ours is not far above.
            where["at"] = " < ".join(f"{f.filename}:{f.lineno}" for f in reversed(frames[-4:]))
        get_logger().log(record.levelno, "library_said", library=record.name, said=said, **where)


def get_logger() -> structlog.stdlib.BoundLogger:
    """The logger of this process; `configure_logs` decides its form."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger()
    return logger
