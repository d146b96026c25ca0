"""How does all of Headwater run under one command, and come back when a part of it dies?

Servers first, then topics and tables, then the roles, each in a process of its own that is tied to
this one. A part that ends is started again after a pause that doubles while it keeps failing. On
the way out the order is turned round: intake stops before the streams, these before the sinks, and
the servers last, so that nothing is asked of a server that has gone.
"""

import errno
import json
import os
import secrets
import shutil
import socket
import time
from pathlib import Path

from headwater.caller import url_of
from headwater.keys import provide_keys, write_private
from headwater.roles import PROCESSES, prepare_stores
from headwater.segments import apply_configured
from headwater.supervision import Part, Restarts, RoleProcess, Say, asked_to_stop, say_exit
from runtime.embedded import EmbeddedStack, Wanted
from runtime.processes import free_ports, lock_directory, tail
from runtime.settings import Role, Settings
from schemas.errors import SettingInvalid, StoreUnavailable

READY_WITHIN_S = 120.0
_TRIES_AT_START = 4
_TEND_EVERY_S = 0.1


class House:
    """Everything under one data directory, as children of this process.

    Use it from the main thread: children end with the thread that started them.
    """

    def __init__(self, settings: Settings, say: Say) -> None:
        self.data_dir = Path(settings.data_dir).absolute()
        self.settings = settings
        self.made_keys: dict[Role, str] = {}
        self._say = say
        self._restarts = Restarts(say)
        self._stack = EmbeddedStack(
            self.data_dir,
            Wanted(
                broker=None if settings.kafka.bootstrap_servers else settings.kafka.embedded,
                redis=not settings.redis.url,
                clickhouse=not settings.clickhouse.url,
            ),
            say=say,
        )
        settings_file = self.data_dir / "run" / "settings.json"
        self.settings_file = settings_file
        self.roles = tuple(
            RoleProcess(name, roles, self.data_dir, settings_file)
            for name, roles in PROCESSES.items()
        )

    @property
    def url(self) -> str:
        """Where the page and the API are."""
        return url_of(self.settings.http)

    def start(self) -> None:
        """Start all of it; afterwards every part has said that it is ready.

        Raises SettingInvalid for a directory or port in use, StoreUnavailable when a part does not
        come up, with the end of its log. Nothing is left running then.
        """
        # Until here the directory may be another's: nothing of it is ours to stop or remove.
        self._take_port()
        addresses = self._stack.start()
        try:
            self._say(self._stack.broker_sentence)
            provided = provide_keys(self.settings, self.data_dir)
            self.made_keys = provided.made_keys
            self.settings = _with_addresses(
                provided.settings,
                bootstrap_servers=addresses.bootstrap_servers,
                redis_url=addresses.redis_url,
                clickhouse_url=addresses.clickhouse_url,
                is_trial=self._stack.broker_kind == "trial",
                instance_id=_instance_id(self.data_dir),
            )
            text = json.dumps(self.settings.model_dump(mode="json"), indent=2)
            write_private(self.settings_file, text + "\n")
            prepare_stores(self.settings)
            apply_configured(self.settings, self._say)
            for role in self.roles:
                role.start()
            self._wait_ready()
        except BaseException:
            self.stop()
            raise

    def tend(self) -> None:
        """Start again what has ended; returns at once. Call it a few times a second."""
        parts: tuple[Part, ...] = (*self._stack.servers, *self.roles)
        for part in parts:
            self._restarts.tend(part)

    def stop(self) -> None:
        """Stop all of it: intake, streams, sinks, servers."""
        # Sinks end together: neither waits for the other.
        intake, streams, *sinks = self.roles
        for group in ([intake], [streams], sinks):
            for role in group:
                role.begin_stop()
            for role in group:
                role.stop()
        self.settings_file.unlink(missing_ok=True)
        self._stack.stop()

    def _take_port(self) -> None:
        """Stop what a killed owner left, then make sure that the port is free.

        Asked before the servers start, so that a wrong port costs no minute.
        """
        lock = lock_directory(self.data_dir)
        try:
            for role in self.roles:
                role.stop_left_over()
        finally:
            lock.release()
        http = self.settings.http
        if http.port == 0:
            (port,) = free_ports(1)
            http = http.model_copy(update={"port": port})
            self.settings = self.settings.model_copy(update={"http": http})
        elif why := why_not_free(http.host, http.port):
            raise SettingInvalid(
                f"[http] port {http.port} {why}; choose another with --port, or --port 0 for any "
                "free one"
            )

    def _wait_ready(self) -> None:
        until_s = time.monotonic() + READY_WITHIN_S
        ends = dict.fromkeys((role.name for role in self.roles), 0)
        while waiting := [role for role in self.roles if not role.is_ready()]:
            for role in waiting:
                if role.exit_code is None:
                    continue
                ends[role.name] += 1
                # 2 is a wrong setting: trying again would not make it right.
                if role.exit_code == 2 or ends[role.name] == _TRIES_AT_START:
                    raise StoreUnavailable(
                        f"{role.name} ended instead of starting, with {say_exit(role.exit_code)}; "
                        f"the end of {role.log_file}:\n{tail(role.log_file, 15)}"
                    )
                role.start()
            if time.monotonic() > until_s:
                names = ", ".join(role.name for role in waiting)
                raise StoreUnavailable(
                    f"not ready within {READY_WITHIN_S:.0f} s: {names}; the end of "
                    f"{waiting[0].log_file}:\n{tail(waiting[0].log_file, 15)}"
                )
            time.sleep(_TEND_EVERY_S)


def run_up(settings: Settings, *, ready_file: Path | None, say: Say) -> None:
    """Run everything until a signal asks to stop; nothing of it is left afterwards."""
    with asked_to_stop(say) as asked:
        house = House(settings, say)
        try:
            house.start()
        except KeyboardInterrupt:
            say("Stopped before it was ready.")
            return
        asked.begin_waiting()
        try:
            if ready_file is not None:
                write_private(ready_file, json.dumps(ready_answer(house)) + "\n")
            _greet(house, say)
            while not asked.is_asked:
                house.tend()
                time.sleep(_TEND_EVERY_S)
            say("Stopping: intake, streams, sinks, servers ...")
        finally:
            house.stop()
            if ready_file is not None:
                ready_file.unlink(missing_ok=True)
        say(f"Stopped. The data are in {house.data_dir}.")


def ready_answer(house: House) -> dict[str, object]:
    """What `--ready-file` holds."""
    keys = dict(house.settings.http.keys)
    return {"url": house.url, "process_id": os.getpid(), "keys": keys}


def _greet(house: House, say: Say) -> None:
    keys = house.data_dir / "keys.json"
    if house.made_keys:
        say(f"Page: {house.url}/#key={house.settings.http.keys['viewer']}")
        say(f"API keys made at this first start (kept in {keys}):")
        for role, key in house.made_keys.items():
            say(f"  {role:<16}{key}")
    else:
        say(f"Page: {house.url}")
    say(f"Logs: {house.data_dir / 'logs'}. Ctrl-C stops everything; the data stay.")


def _with_addresses(
    settings: Settings,
    *,
    bootstrap_servers: str,
    redis_url: str,
    clickhouse_url: str,
    is_trial: bool,
    instance_id: str,
) -> Settings:
    """Settings with the embedded servers' addresses where none was configured, paths absolute."""
    kafka = settings.kafka.model_copy(
        update={
            "bootstrap_servers": settings.kafka.bootstrap_servers or bootstrap_servers,
            "is_trial": settings.kafka.is_trial or is_trial,
            # A worker that died is replaced at once, not after the group has missed it.
            "instance_id": settings.kafka.instance_id or instance_id,
        }
    )
    redis = settings.redis.model_copy(update={"url": settings.redis.url or redis_url})
    clickhouse = settings.clickhouse.model_copy(
        update={"url": settings.clickhouse.url or clickhouse_url}
    )
    vault = settings.vault.model_copy(
        update={
            name: str(Path(getattr(settings.vault, name)).absolute())
            for name in ("pepper_file", "key_encryption_key_file")
        }
    )
    key_file = str(Path(settings.erasure.signing_key_file).absolute())
    erasure = settings.erasure.model_copy(update={"signing_key_file": key_file})
    parts = {"kafka": kafka, "redis": redis, "clickhouse": clickhouse}
    secrets = {"vault": vault, "erasure": erasure}
    data_dir = str(Path(settings.data_dir).absolute())
    return settings.model_copy(update={"data_dir": data_dir, **parts, **secrets})


def _instance_id(data_dir: Path) -> str:
    """A name of this directory's one worker that no other directory has."""
    file = data_dir / "instance_id"
    if not file.exists():
        write_private(file, f"up-{secrets.token_hex(4)}\n")
    return file.read_text("utf-8").strip()


def why_not_free(host: str, port: int) -> str:
    """Why nobody can listen on that port now; empty if somebody can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as bound:
        # As servers do, so that connections of a moment ago do not make a port look taken.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return "is taken by another program"
            return f"of {host} cannot be used: {error.strerror}"
    return ""


def remove_data(data_dir: Path) -> None:
    """Remove the directory of a house that has stopped."""
    shutil.rmtree(data_dir, ignore_errors=True)
