"""placeholder"""


def run_demo(*a: object, **k: object) -> None:
    """Placeholder"""
