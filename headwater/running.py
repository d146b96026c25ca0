"""Which Headwater does a command talk to?

Servers that the configuration names are where it says. The others belong to a running
`headwater up`, which writes down where they are for as long as it runs.
"""

from pathlib import Path

from runtime.clock import follow
from runtime.settings import Role, Settings, load_settings
from schemas.errors import SettingInvalid, StoreUnavailable

CONFIG_FILE = Path("headwater.toml")
"""Read from the current directory when no --config is given and it is there."""


def chosen_settings(
    config: Path | None, *, data_dir: Path | None = None, port: int | None = None
) -> Settings:
    """The configuration as its file, the environment and the options say; options win.

    Raises SettingInvalid.
    """
    file = config if config is not None else (CONFIG_FILE if CONFIG_FILE.exists() else None)
    settings = load_settings(file)
    if settings.time.clock_file:
        raise SettingInvalid(
            "[time] clock_file: expected nothing; only `headwater demo --fast-clock` sets it"
        )
    if data_dir is not None:
        settings = settings.model_copy(update={"data_dir": str(data_dir)})
    if port is not None:
        if not 0 <= port <= 65_535:
            raise SettingInvalid(f"--port {port}: expected 0 (any free one) to 65535")
        http = settings.http.model_copy(update={"port": port})
        settings = settings.model_copy(update={"http": http})
    return settings


def settings_file_of(settings: Settings) -> Path:
    """Where a running `headwater up` keeps the settings in force, addresses and keys included."""
    return Path(settings.data_dir).absolute() / "run" / "settings.json"


def settings_in_force(settings: Settings) -> Settings:
    """`settings` if they name every server, else those of the `headwater up` on their data_dir,
    whose clock this process goes by from now on.

    Raises StoreUnavailable if there is none.
    """
    if settings.kafka.bootstrap_servers and settings.redis.url and settings.clickhouse.url:
        return settings
    file = settings_file_of(settings)
    if not file.exists():
        raise StoreUnavailable(
            f"no Headwater runs on {file.parent.parent}; start one with 'headwater up', or name "
            "the servers: [kafka] bootstrap_servers, [redis] url, [clickhouse] url"
        )
    found = load_settings(file, {})
    follow(found.time.clock_file)
    return found


def settings_of_sender(settings: Settings) -> Settings:
    """What a sender of events needs: the port and the write keys of a running Headwater.

    Those of the `headwater up` on this data_dir if one runs, else the configured ones. Raises
    StoreUnavailable if there is neither.
    """
    file = settings_file_of(settings)
    if file.exists():
        return load_settings(file, {})
    if settings.sources or settings.http.keys.get("write"):
        return settings
    return settings_in_force(settings)


def settings_of_desk(settings: Settings, role: Role = "consent_desk") -> Settings:
    """What a desk needs: the port and the key of a running Headwater. As for senders."""
    file = settings_file_of(settings)
    if file.exists():
        return load_settings(file, {})
    return settings if settings.http.keys.get(role) else settings_in_force(settings)
