"""What keeps an erasure from beginning: actions that validators refuse, and people who cannot be told apart."""

from collections.abc import Mapping
from typing import Any

from compliance.datamap.lint import impossible_actions
from compliance.erasure.progress import Erasure
from compliance.erasure.series import faults_of_series
from compliance.errors import ConfigurationError, ErasureIncomplete
from compliance.mongo import Db, driver_errors


def refuse_impossible_actions(erasure: Erasure) -> None:
    """Compare the actions of the data map with the validators that stand now.

    Raises:
        ConfigurationError: Naming every action that a validator would refuse.
    """
    faults = list(impossible_actions(erasure.data_map, live_schemas(erasure.databases.app)))
    faults += faults_of_series(erasure.locator.steps, erasure.databases.app)
    if faults:
        raise ConfigurationError(f"the data map asks for what the validators refuse: {'; '.join(faults)}")


def refuse_lookalikes(erasure: Erasure) -> None:
    """Look for others who are named like the person but for letter case or Unicode form.

    Raises:
        ErasureIncomplete: With their number; a person must correct them.
    """
    found, subject = erasure.locator.lookalikes(), erasure.data_map.subject
    if found:
        raise ErasureIncomplete(
            f"{found} other documents of {subject.collection} have a {subject.key} that differs from this person's in "
            "letter case or Unicode form only, so what belongs to whom cannot be told; correct them, "
            f"then `compliance jobs retry {erasure.request_id}`"
        )


def live_schemas(database: Db) -> dict[str, Mapping[str, Any]]:
    """Return the ``$jsonSchema`` of each collection of *database*, empty where it has none."""
    with driver_errors():
        listed = database.list_collections(filter={"type": "collection"})
        return {info["name"]: info["options"].get("validator", {}).get("$jsonSchema", {}) for info in listed}
