"""What becomes of one path of a document that a rule finds; pure."""

from dataclasses import dataclass
from datetime import UTC, datetime

from compliance.datamap.diff.change import Effect, by_rank
from compliance.datamap.form import is_under
from compliance.datamap.rule import Archive, Delete, Keep, Kept, Pull, RemoveKey, Rule, Update

LEFT, COPIED, MASKED, GONE = range(4)  # the higher, the less of it is left
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # periods are compared by where they end when they begin then


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a path: how much of it is left, in words, and on what ground.

    Attributes:
        rank: One of the constants above.
        kept: Only with ``LEFT``, where there is a ground.
    """

    rank: int
    words: str
    kept: Kept | None = None


NOT_FOUND = Fate(LEFT, "not found")


def fate(rule: Rule, path: str) -> Fate:
    """Return what becomes of *path* of a document that *rule* finds; the empty path is all that nobody declared."""
    action = rule.on_erase
    match action:
        case Delete():
            return Fate(GONE, "deleted")
        case Archive():
            is_copied = any(is_under(path, copied) or is_under(copied, path) for copied in action.fields)
            return Fate(COPIED, f"copied to {action.to}") if path and is_copied else Fate(GONE, "deleted")
        case Pull() if path and is_under(path, action.array):
            return Fate(GONE, "pulled")
        case RemoveKey() if path and is_under(path, rule.locate.path.removesuffix("{}")):
            return Fate(GONE, "removed")
        case Update():
            return _updated(action, path) or _left(rule, path)
        case _:
            return _left(rule, path)


def _updated(action: Update, path: str) -> Fate | None:
    ways = (
        *((touched, Fate(GONE, "set to a constant")) for touched in action.set),
        *((touched, Fate(GONE, "unset")) for touched in action.unset),
        *((touched, Fate(GONE, "relabelled")) for touched in action.relabel),
        *((touched, Fate(MASKED, f"masked by {strategy}")) for touched, strategy in action.mask.items()),
    )
    return next((found for touched, found in ways if path and is_under(path, touched)), None)


def _left(rule: Rule, path: str) -> Fate:
    kept = rule.kept
    if kept is not None and (isinstance(rule.on_erase, Keep) or any(is_under(path, one) for one in kept.fields)):
        return Fate(LEFT, f"kept ({_ground(kept)}{_end(kept)})", kept)
    return Fate(LEFT, "left without a ground")


def _ground(kept: Kept) -> str:
    return f"Art. {kept.article}" if kept.article else kept.ground


def _end(kept: Kept) -> str:
    if kept.until is not None:
        return f", until {kept.until}"
    return f", for {kept.period}" if kept.period is not None else ""


def effect_of(before: Fate, now: Fate) -> Effect:
    """Return what the step from one fate to another does."""
    if before.kept is not None and now.kept is not None:
        return effect_of_ends(before.kept, now.kept)
    is_ground_lost = before.kept is not None and now.kept is None and now.rank == LEFT
    return Effect.LESS if is_ground_lost else by_rank(before.rank, now.rank)


def effect_of_ends(before: Kept, now: Kept) -> Effect:
    """Return whether something is kept for longer; a day and a period cannot be compared."""
    if (before.until, before.period) == (now.until, now.period):
        return Effect.SAME
    if not (before.until or before.period):
        return Effect.MORE
    if before.until and now.until:
        return Effect.MORE if now.until < before.until else Effect.LESS
    if before.period and now.period:
        return Effect.MORE if now.period.after(_EPOCH) < before.period.after(_EPOCH) else Effect.LESS
    return Effect.LESS
