"""Whose signatures are believed: the keys of the writers, and those of the log.

Whoever verifies MUST have these from elsewhere than from what is verified.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from compliance.audit.checkpoint import Checkpoint, Policy, open_checkpoint, parse_checkpoint
from compliance.audit.keys import KeyType, SigningKey, Verifier, parse_skey, parse_vkey
from compliance.audit.note import parse_note
from compliance.errors import ConfigurationError, InvalidProof

_SECRET = re.compile(r"[A-Za-z0-9]{40,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """The keys that count, by what they may sign.

    Attributes:
        origin: The name of the log without its year.
        writers: Keys that may sign entries.
        log_keys: Keys that may sign checkpoints; of each, the log of every year has one in its own name.
        witnesses: Cosigners that watch the log.
        quorum: How many of them must have signed a checkpoint.
    """

    origin: str
    writers: tuple[Verifier, ...]
    log_keys: tuple[Verifier, ...]
    witnesses: tuple[Verifier, ...] = ()
    quorum: int = 0

    def writer(self, key: object) -> Verifier | None:
        """Return the writer's key that an entry names, None where it is not one of ours."""
        return next((known for known in self.writers if key_name(known) == key), None)

    def names(self, log: str) -> bool:
        """Whether *log* is called like that of one of our years."""
        return log.rpartition("/")[0] == self.origin

    def open(self, note: bytes) -> Checkpoint:
        """Return what a checkpoint of one of our logs states.

        Raises:
            InvalidProof: When *note* is none, or no key of ours signed it.
            ConfigurationError: When no key of the log is known.
        """
        log = parse_checkpoint(parse_note(note)[0]).origin
        if not self.names(log):
            raise InvalidProof(f"it is of the log {log}, not of {self.origin}")
        return open_checkpoint(note, policy=self.policy(log)).checkpoint

    def policy(self, log: str) -> Policy:
        """Return whom to believe about the log of one year.

        Raises:
            ConfigurationError: When no key of the log is known.
        """
        if not self.log_keys:
            raise ConfigurationError("no key of the audit log is known: set COMPLIANCE_LOG_VKEYS")
        keys = tuple(replace(known, name=log) for known in self.log_keys)
        return Policy(origin=log, keys=keys, witnesses=self.witnesses, quorum=self.quorum)


def policy_of(keys: Iterable[Verifier], log: str) -> Policy:
    """Return the policy that believes *keys* about *log*, whatever year they are named for.

    Raises:
        ConfigurationError: When there is no key.
    """
    return Policy(origin=log, keys=tuple(dict.fromkeys(replace(known, name=log) for known in keys)))


def key_name(verifier: Verifier) -> str:
    """Return what an entry calls the key that signed it: name and id."""
    return f"{verifier.name}+{verifier.key_id.hex()}"


def yearly(key: SigningKey, log: str) -> SigningKey:
    """Return *key* in the name of the log of one year: a signature for one is none for another."""
    return replace(key, verifier=replace(key.verifier, name=log))


def parse_keys(text: str, *, what: str) -> tuple[Verifier, ...]:
    """Return the verifier keys of *text*, separated by white space or commas.

    Raises:
        ConfigurationError: When one is none, or is that of a cosigner.
    """
    try:
        return tuple(_own(parse_vkey(one)) for one in text.replace(",", " ").split())
    except ConfigurationError as error:
        raise ConfigurationError(f"{what}: {error}") from None


def parse_own_key(text: str, *, signer: str, what: str) -> SigningKey:
    """Return the private key of *text*; no part of it is in an error.

    Args:
        text: A private key as Go's ``sumdb/note`` writes it, or at least 40 random letters and digits, from which the
            key of *signer* is made.
        signer: The name of the key in the second case.
        what: The name of the setting, for an error.

    Raises:
        ConfigurationError: When it is neither, or is the key of a cosigner.
    """
    if _SECRET.fullmatch(text):
        return SigningKey.from_seed(signer, hashlib.sha256(f"compliance {signer} key\n{text}".encode()).digest())
    try:
        key = parse_skey(text)
        _own(key.verifier)
    except ConfigurationError as error:
        raise ConfigurationError(f"{what}: {error}, or 40 random letters and digits or more") from None
    return key


def joined(keys: Iterable[Verifier], own: SigningKey | None) -> tuple[Verifier, ...]:
    """Return *keys* and the public half of *own*, each once."""
    return tuple(dict.fromkeys((*keys, *((own.verifier,) if own else ()))))


def _own(verifier: Verifier) -> Verifier:
    if verifier.kind is not KeyType.ED25519:
        raise ConfigurationError("a key of type 0x01 is needed, not that of a witness")
    return verifier
