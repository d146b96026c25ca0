"""Does the proxy do to a connection what the fault tests say that it does?"""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.faults.proxy import Proxy, containing, kafka_request
from tests.waiting import eventually

SHORT_S = 0.2


class Echo:
    """A server that answers what it was sent, and remembers it."""

    def __init__(self) -> None:
        self.heard = b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.listener.getsockname()
        return host, port

    def close(self) -> None:
        # A thread in `accept` keeps a socket listening that is only closed.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65_536):
                    self.heard += data
                    connection.sendall(data)
            except OSError:
                return


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    with suppress(OSError):
        server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.address) as proxy:
        yield proxy


@contextmanager
def connected(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection((proxy.host, proxy.port), timeout=20) as client:
        yield client


def read(client: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        data = client.recv(count - len(found))
        assert data, f"ended after {found!r}"
        found += data
    return found


def is_silent(client: socket.socket) -> bool:
    client.settimeout(SHORT_S)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(20)
    return False


def is_reset(client: socket.socket) -> bool:
    try:
        client.recv(1)
    except ConnectionResetError:
        return True
    return False


def test_all_bytes_pass_both_ways_and_a_half_that_ends_does_not_end_the_other(proxy: Proxy) -> None:
    sent = bytes(range(256)) * 20_000
    with connected(proxy) as client:

        def send() -> None:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        assert read(client, len(sent)) == sent
        assert client.recv(1) == b""
        sender.join()
    eventually(lambda: proxy.connections == 0)


def test_what_a_cut_holds_back_arrives_when_it_is_healed(proxy: Proxy, echo: Echo) -> None:
    with connected(proxy) as client:
        proxy.cut("to server")
        client.sendall(b"one")
        assert is_silent(client)
        assert echo.heard == b""
        proxy.heal()
        assert read(client, 3) == b"one"
        proxy.cut("to client")
        client.sendall(b"two")
        eventually(lambda: echo.heard == b"onetwo")
        assert is_silent(client)
        proxy.heal()
        assert read(client, 3) == b"two"


def test_delayed_bytes_keep_their_order_and_come_at_once_when_healed(
    proxy: Proxy, echo: Echo
) -> None:
    with connected(proxy) as client:
        proxy.delay(SHORT_S)
        client.sendall(b"one")
        assert read(client, 3) == b"one"
        proxy.delay(3_600, "to client")
        for each in (b"two", b"three"):
            client.sendall(each)
        eventually(lambda: echo.heard == b"onetwothree")
        assert is_silent(client)
        proxy.heal()
        assert read(client, 8) == b"twothree"


def test_lost_answer_is_one_of_a_request_that_arrived(proxy: Proxy, echo: Echo) -> None:
    with connected(proxy) as other, connected(proxy) as client:
        proxy.lose_answers(containing(b"INSERT"), times=1)
        other.sendall(b"SELECT")
        assert read(other, 6) == b"SELECT"
        client.sendall(b"INSERT 1")
        assert is_reset(client)
        assert echo.heard == b"SELECTINSERT 1"
        assert proxy.lost_answers == 1
        other.sendall(b"INSERT 2")
        assert read(other, 8) == b"INSERT 2"


def test_answers_of_new_connections_are_lost_too_until_healed(proxy: Proxy, echo: Echo) -> None:
    proxy.lose_answers(linger_s=0)
    for _ in range(3):
        with connected(proxy) as client:
            client.sendall(b"x")
            assert is_reset(client)
    assert proxy.lost_answers == 3
    assert echo.heard == b"xxx"
    proxy.heal()
    with connected(proxy) as client:
        client.sendall(b"y")
        assert read(client, 1) == b"y"


def test_refused_connections_are_reset_and_others_pass_after_healing(proxy: Proxy) -> None:
    with connected(proxy) as client:
        client.sendall(b"x")
        assert read(client, 1) == b"x"
        proxy.refuse()
        assert is_reset(client)
        with pytest.raises((ConnectionResetError, BrokenPipeError)), connected(proxy) as late:
            late.recv(1)
        proxy.heal()
    with connected(proxy) as client:
        client.sendall(b"z")
        assert read(client, 1) == b"z"


def test_server_that_is_away_resets_and_is_found_again(echo: Echo) -> None:
    with Proxy(echo.address) as proxy:
        echo.close()
        with pytest.raises(ConnectionResetError), connected(proxy) as client:
            client.recv(1)
        proxy.upstream = Echo().address
        with connected(proxy) as client:
            client.sendall(b"x")
            assert read(client, 1) == b"x"


def test_request_of_kafka_is_known_by_its_key() -> None:
    produce, metadata = (struct.pack(">ihh", 8, key, 9) + b"1234" for key in (0, 3))
    assert kafka_request(0)(produce)
    assert kafka_request(0)(metadata + produce)
    assert not kafka_request(8, 26)(produce + metadata)
    assert not kafka_request(0)(b"")
