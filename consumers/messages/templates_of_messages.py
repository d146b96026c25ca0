"""What does a message say?

Three templates each, in Jinja: `NAME.subject`, `NAME.txt`, `NAME.html`; those of `[sending]
templates_dir` before the shipped ones. They run in Jinja's sandbox, HTML is escaped, and a name
that is not there is a fault and not a gap in somebody's mail.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import BaseLoader, ChoiceLoader, DictLoader, FileSystemLoader, StrictUndefined
from jinja2.exceptions import TemplateError, TemplateNotFound, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from runtime.settings import Settings
from schemas.errors import SettingInvalid

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
_PARTS = ("subject", "txt", "html")
_LONGEST = 500_000
SHIPPED = ("cart",)
"""Templates that come with it."""


class TemplateFault(Exception):
    """A template does not make a message; `reason` names it and says why, without a value."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a message says."""

    subject: str
    text: str
    html: str


class Templates:
    """Renders messages. Raises SettingInvalid when the directory is not there."""

    def __init__(self, settings: Settings) -> None:
        loaders: list[BaseLoader] = []
        own = settings.sending.templates_dir
        if own:
            if not Path(own).is_dir():
                raise SettingInvalid(f"[sending] templates_dir: {own} is not a directory")
            loaders.append(FileSystemLoader(own))
        folder = resources.files("consumers.messages") / "templates"
        shipped = {
            file.name: file.read_text("utf-8")
            for file in folder.iterdir()
            if file.name.endswith(_PARTS)
        }
        self._environment = ImmutableSandboxedEnvironment(
            loader=ChoiceLoader([*loaders, DictLoader(shipped)]),
            autoescape=lambda name: name is not None and name.endswith(".html"),
            undefined=StrictUndefined,
            trim_blocks=False,
        )

    def check(self, name: str) -> None:
        """Raises TemplateFault if a part of that template is missing or is no template."""
        for part in _PARTS:
            self._part(name, part)

    def render(self, name: str, known: Mapping[str, Any]) -> Rendered:
        """The message. Raises TemplateFault."""
        subject, text, html = (self._render(name, part, known) for part in _PARTS)
        return Rendered(" ".join(subject.split()), text, html)

    def _render(self, name: str, part: str, known: Mapping[str, Any]) -> str:
        template = self._part(name, part)
        try:
            text = str(template.render(known))
        # A template may do anything that an expression can, and fail in as many ways.
        except Exception as error:
            raise TemplateFault(f"{name}.{part}: {_said(error)}") from None
        if len(text) > _LONGEST:
            raise TemplateFault(f"{name}.{part}: longer than {_LONGEST} characters")
        return text

    def _part(self, name: str, part: str) -> Any:
        if not _NAME.fullmatch(name):
            raise TemplateFault("the name of a template is letters, digits, _ and -")
        try:
            return self._environment.get_template(f"{name}.{part}")
        except TemplateNotFound as error:
            raise TemplateFault(f"{error.name}: there is no such template") from None
        except (TemplateError, UnicodeDecodeError, OSError) as error:
            raise TemplateFault(f"{name}.{part}: {_said(error)}") from None


def _said(error: Exception) -> str:
    # Its text may hold a value of the person: only that of a fault in the template's own words.
    if isinstance(error, TemplateSyntaxError):
        return f"line {error.lineno}: {error.message}"
    return type(error).__name__
