"""A change of shape while two versions of an application write: expand, keep both shapes in step, verify, contract."""
