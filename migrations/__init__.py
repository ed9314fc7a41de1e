"""Schema migrations of a MongoDB database: scripts in order, applied once, with a ledger and an audit trail.

Scripts are files ``vNNN_<pre|data|post>_<slug>.py`` of one folder; they import only ``migrations.context`` and
``migrations.ops``. ``python -m migrations --env=production`` applies what is pending.
"""
