"""Law 12: what is stored is unreadable without the key, and usable in one place only."""

import traceback

import pytest
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured

from approvals.secrets import SecretMisplaced, SecretUnreadable, rotate, seal, unseal

OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()
SECRET = "correct horse \u00fc \ud800"
PLACE = {"table": "targets", "key": "7", "field": "admin_password"}


@pytest.fixture(autouse=True)
def keys(settings):
    settings.ENCRYPTION_KEYS = [OLD]
    return settings


def test_a_sealed_secret_comes_back_in_its_place():
    cipher = seal(SECRET, **PLACE)
    assert "correct" not in cipher
    assert unseal(cipher, **PLACE) == SECRET
    assert seal(SECRET, **PLACE) != cipher


@pytest.mark.parametrize(
    "elsewhere", [{"table": "tokens"}, {"key": "8"}, {"key": ""}, {"field": "note"}]
)
def test_a_secret_moved_to_another_place_is_refused(elsewhere):
    cipher = seal(SECRET, **PLACE)
    with pytest.raises(SecretMisplaced, match="moved") as refused:
        unseal(cipher, **{**PLACE, **elsewhere})
    assert "correct" not in "".join(traceback.format_exception(refused.value))


def test_parts_of_a_place_cannot_be_shifted_into_one_another():
    cipher = seal(SECRET, table="a", key="b.c", field="d")
    with pytest.raises(SecretMisplaced):
        unseal(cipher, table="a.b", key="c", field="d")


@pytest.mark.parametrize("place", [0, 20, -1])
def test_a_changed_ciphertext_is_refused(place):
    cipher = seal(SECRET, **PLACE)
    other = "A" if cipher[place] != "A" else "B"
    letters = list(cipher)
    letters[place] = other
    changed = "".join(letters)
    with pytest.raises(SecretUnreadable) as refused:
        unseal(changed, **PLACE)
    assert not isinstance(refused.value, SecretMisplaced)


@pytest.mark.parametrize("cipher", ["", "plain text", "\u00fcml\u00e4ut", "gAAAAA=="])
def test_what_was_never_sealed_is_refused(cipher):
    with pytest.raises(SecretUnreadable):
        unseal(cipher, **PLACE)
    with pytest.raises(SecretUnreadable):
        rotate(cipher)


@pytest.mark.parametrize("content", [b"correct horse", b'"correct horse"', b"{}", b'{"v":2}'])
def test_something_else_under_the_same_key_is_refused_without_quoting_it(content):
    cipher = Fernet(OLD).encrypt(content).decode()
    with pytest.raises(SecretUnreadable) as refused:
        unseal(cipher, **PLACE)
    assert "correct" not in "".join(traceback.format_exception(refused.value))


def test_another_key_cannot_read_it(keys):
    cipher = seal(SECRET, **PLACE)
    keys.ENCRYPTION_KEYS = [NEW]
    with pytest.raises(SecretUnreadable, match="none of the keys"):
        unseal(cipher, **PLACE)
    with pytest.raises(SecretUnreadable):
        rotate(cipher)


def test_keys_are_rotated_without_a_moment_of_unreadable_secrets(keys):
    cipher = seal(SECRET, **PLACE)
    keys.ENCRYPTION_KEYS = [NEW, OLD]
    assert unseal(cipher, **PLACE) == SECRET
    rotated = rotate(cipher)
    keys.ENCRYPTION_KEYS = [NEW]
    assert unseal(rotated, **PLACE) == SECRET
    with pytest.raises(SecretMisplaced):
        unseal(rotated, **{**PLACE, "key": "8"})


@pytest.mark.slow
@pytest.mark.parametrize("unusable", [[], ["too-short"], ["\u00fc" * 44], [""]])
def test_without_a_usable_key_it_says_how_to_make_one(keys, unusable):
    keys.ENCRYPTION_KEYS = unusable
    with pytest.raises(ImproperlyConfigured, match=r"Fernet\.generate_key") as refused:
        seal(SECRET, **PLACE)
    assert "too-short" not in str(refused.value)
