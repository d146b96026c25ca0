"""How does a role say what it does?

One line an occurrence, as fields (topic, partition, offset, event_id): JSON where a machine reads,
plain where a person does. Never a value of a person: ids and lengths only.
"""

import logging
import sys

import structlog


def configure_logs(*, role: str, as_json: bool, level: int = logging.INFO) -> None:
    """Send all logging of this process to stderr. Debug output of libraries is cut off early.

    Faust formats its debug lines even when nobody reads them: disabling the level altogether was
    worth 12-15% of throughput (ADR 0001).
    """
    logging.disable(logging.DEBUG)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s", force=True)
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


def get_logger() -> structlog.stdlib.BoundLogger:
    """The logger of this process; `configure_logs` decides its form."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger()
    return logger
