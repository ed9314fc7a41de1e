"""The rules as people read them: a page for all, a text for one."""

from migrations.governance.rule import RULES, Rule

PAGE = """# Rules of migrations

`compliance migrate lint` looks at the scripts of `COMPLIANCE_MIGRATIONS` by these rules. `lint --rule MX012` explains
one, with a script in which it finds something and one as it should be.

An `error` keeps a script out of production, a `warning` does not. `# allow: MX012 because of this and that`, on a line
or above it, silences one rule there; it takes a reason of three words or more, and the audit log keeps it when the
script is applied (`migration.lint_allowed`). MX090 to MX096 compare with the live database: `lint --live`.

This page is made by `python -m migrations.governance`.

| rule | finds | why | |
| --- | --- | --- | --- |
"""


def page() -> str:
    """Return the page of all rules, as Markdown."""
    rows = (f"| {rule.code} | {rule.title} | {rule.reason} | {rule.severity} |\n" for rule in RULES.values())
    return PAGE + "".join(rows)


def explain(rule: Rule) -> str:
    """Return what *rule* finds, why, and two scripts."""
    before = "".join(f"\n# {sample.file}, before it\n{sample.source}" for sample in rule.good.before)
    return (
        f"{rule.code} ({rule.severity}): {rule.title}\n\n{rule.reason}\n\n"
        f"--- it finds something in {rule.bad.file}\n{rule.bad.source}\n"
        f"--- it asks for {rule.good.file}\n{rule.good.source}{before}"
    )
