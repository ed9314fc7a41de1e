"""A club whose members are known by their e-mail address alone: the data map, the scripts, and some people."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deployment import Deployment
from migrated import write_scripts

from worker.up import provision_stack

MAP = """
apiVersion: datamap/v1
subject:
  collection: members
  key: email
  keys:
    email: {path: _id, type: string, personal: true}
collections:
  orders:
    - locate: {path: buyer, key: email}
      on_erase: {action: update, set: {buyer: nobody}}
      kept: {fields: [total], ground: GDPR Art. 17(3)(b), why: invoices must be kept}
  profiles:
    - locate: {path: member, key: email}
      on_erase: {action: delete}
  photos:
    - locate: {path: profile_id, of: profiles}
      on_erase: {action: delete}
  consent:
    - locate: {path: user_id, key: email}
      on_erase: {action: delete}
history: {suffix: _history, id_path: document_id}
consent_types: [MARKETING]
imports: [profiles]
"""
SCRIPTS = {
    "v001_pre_club.py": '''
        """Members of a club and what is theirs."""

        NAMES = ("members", "orders", "profiles", "photos", "consent", "letters")


        def up(ctx):
            """Create."""
            for name in NAMES:
                ctx.create_collection(name, schema={"bsonType": "object"})


        def down(ctx):
            """Drop."""
            for name in NAMES:
                ctx.drop_collection(name)
    ''',
}
ANN, BOB = "Ann.Lee+club@example.org", "bob@example.org"
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def found_club(empty: Deployment, folder: Path, **settings: Any) -> Deployment:
    """A migrated club with two members, each with one of everything."""
    data_map = folder / "club.yaml"
    data_map.write_text(MAP)
    club = empty.with_settings(migrations=write_scripts(folder / "club", SCRIPTS), data_map=data_map, **settings)
    provision_stack(club.settings, club.stack.endpoints)
    club.migrate()
    for number, address in enumerate((ANN, BOB)):
        join(club, address, number)
    return club


def join(club: Deployment, address: str, number: int) -> None:
    app = club.admin.app
    app["members"].insert_one({"_id": address, "since": NOON, "number": number})
    app["members_history"].insert_one({"_id": number, "document_id": address, "number": -1})
    app["orders"].insert_one({"_id": number, "buyer": address.lower(), "total": 5})
    app["profiles"].insert_one({"_id": f"p-{number}", "member": address, "likes": "chess"})
    app["photos"].insert_one({"_id": number, "profile_id": f"p-{number}"})


def name_of(club: Deployment, address: str) -> str:
    """What requests call a member."""
    pseudonyms = club.services().pseudonyms
    assert pseudonyms is not None
    return pseudonyms.make(address)
