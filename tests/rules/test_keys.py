"""Are the secrets of a first start made once, private, and never replaced?"""

import json
import stat
from pathlib import Path

import pytest

from headwater.keys import provide_keys, write_private
from runtime.settings import ROLES, Http, Settings, Source, Vault
from schemas.errors import SettingInvalid


def test_first_start_makes_every_key_and_file_and_later_ones_find_them(tmp_path: Path) -> None:
    first = provide_keys(Settings(), tmp_path)
    assert set(first.made_keys) == set(ROLES)
    assert len(set(first.made_keys.values())) == len(ROLES)
    assert first.settings.http.keys == first.made_keys
    assert first.settings.sources == (Source(name="default", write_key=first.made_keys["write"]),)
    second = provide_keys(Settings(), tmp_path)
    assert second.made_keys == {}
    assert second.settings == first.settings


def test_made_files_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    vault = provide_keys(Settings(), tmp_path).settings.vault
    assert vault.pepper_file != vault.key_encryption_key_file
    for file in (vault.pepper_file, vault.key_encryption_key_file, tmp_path / "keys.json"):
        assert stat.S_IMODE(Path(file).stat().st_mode) == 0o600
    assert len(bytes.fromhex(Path(vault.pepper_file).read_text().strip())) == 32


def test_configured_keys_and_files_win(tmp_path: Path) -> None:
    provide_keys(Settings(), tmp_path)
    file = tmp_path / "mine"
    file.write_text("ab" * 32)
    chosen = Settings(
        http=Http(keys={"viewer": "chosen-by-me"}),
        vault=Vault(pepper_file=str(file), key_encryption_key_file=str(file)),
        sources=(Source(name="web", write_key="write-of-web"),),
    )
    found = provide_keys(chosen, tmp_path)
    assert found.settings.http.keys["viewer"] == "chosen-by-me"
    assert found.settings.http.keys["write"] == "write-of-web"
    assert found.settings.sources == chosen.sources
    assert found.settings.vault == chosen.vault


def test_role_that_came_later_gets_its_key_and_the_others_keep_theirs(tmp_path: Path) -> None:
    before = provide_keys(Settings(), tmp_path).made_keys
    kept = {role: key for role, key in before.items() if role != "operator"}
    (tmp_path / "keys.json").write_text(json.dumps(kept))
    after = provide_keys(Settings(), tmp_path)
    assert set(after.made_keys) == {"operator"}
    assert {role: after.settings.http.keys[role] for role in kept} == kept


@pytest.mark.parametrize("text", ["", "abcd", "no hex" * 10])
def test_spoilt_secret_stops_the_start_instead_of_being_replaced(tmp_path: Path, text: str) -> None:
    pepper = Path(provide_keys(Settings(), tmp_path).settings.vault.pepper_file)
    pepper.write_text(text)
    with pytest.raises(SettingInvalid, match="pepper"):
        provide_keys(Settings(), tmp_path)
    assert pepper.read_text() == text


@pytest.mark.parametrize("text", ["{", "[]"])
def test_spoilt_key_file_stops_the_start(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(SettingInvalid, match=r"keys\.json"):
        provide_keys(Settings(), tmp_path)


def test_private_file_replaces_whole_and_keeps_no_part(tmp_path: Path) -> None:
    file = tmp_path / "ready.json"
    file.write_text("old")
    file.chmod(0o644)
    write_private(file, "new")
    assert file.read_text() == "new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]
