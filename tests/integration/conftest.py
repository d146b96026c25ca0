"""What tests of a running port share, whichever `served` their module has."""

from collections.abc import Iterator

import pytest

from runtime.vault import Vault
from tests.conftest import FreshName
from tests.integration.serving import Served


@pytest.fixture
def vault(served: Served) -> Iterator[Vault]:
    found = Vault.from_settings(served.settings)
    yield found
    found.close()


@pytest.fixture
def who(fresh_name: FreshName) -> str:
    return f"user:{fresh_name('who')}"
