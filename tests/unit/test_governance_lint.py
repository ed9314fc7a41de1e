"""A comment silences one rule on one line, with a reason; what it silenced is part of the result."""

import pytest
from linted import codes, violations

from migrations.governance import RULES, Severity, allowances, lint, parse_script
from migrations.governance.sample import Sample, data

CLOCK = "now = time.time()"
REASON = "because the report names it"


def found(up: str) -> list[tuple[str, str | None]]:
    return [(violation.rule, violation.allowed) for violation in violations(data(up))]


@pytest.mark.parametrize(
    "up",
    [
        f"{CLOCK}  # allow: MX012 {REASON}",
        f"# allow: MX012 {REASON}\n{CLOCK}",
        f"#allow:MX012   {REASON}  \n{CLOCK}",
        f"now = (\n    time.time(  # allow: MX012 {REASON}\n    )\n)",
    ],
)
def test_an_allowance_counts_on_its_line_and_the_one_below(up: str) -> None:
    assert found(up) == [("MX012", REASON)]


@pytest.mark.parametrize(
    ("up", "more"),
    [
        (f"# allow: MX012 {REASON}\nx = 1\n{CLOCK}", []),
        (f"{CLOCK}\n# allow: MX012 {REASON}", []),
        (f"{CLOCK}  # allow: MX013 {REASON}", []),
        (f'{CLOCK}; "# allow: MX012 {REASON}"', []),
        (f"{CLOCK}  # allow: MX012 two words", ["MX000"]),
        (f"{CLOCK}  # allow: MX012", ["MX000"]),
        (f"{CLOCK}  # allow: MX999 {REASON}", ["MX000"]),
        (f"{CLOCK}  # allow: all {REASON}", ["MX000"]),
        (f"{CLOCK}  # allow: MX012, MX013 {REASON}", ["MX000"]),
    ],
)
def test_any_other_comment_allows_nothing(up: str, more: list[str]) -> None:
    assert sorted(found(up)) == sorted([("MX012", None), *((rule, None) for rule in more)])


def test_an_allowance_cannot_be_allowed() -> None:
    assert found(f"x = 1  # allow: MX000 {REASON}\n# allow: MX012") == [("MX000", None)]


def test_a_finding_about_the_whole_script_is_allowed_in_its_first_line() -> None:
    sample = data("ctx.report('nothing')")
    script = sample.source.replace('OWNER = "catalogue"\n', "").replace(
        'about."""', f'about."""  # allow: MX005 {REASON}'
    )

    assert [(one.rule, one.line, one.allowed) for one in violations(Sample(sample.file, script))] == [
        ("MX005", 1, REASON)
    ]


def test_allowances_are_read_from_the_text_alone() -> None:
    source = f'"""# allow: MX001 not a comment"""\nx = 1  # allow: MX012 {REASON}\n# allow: nothing\n'

    assert [(one.rule, one.reason, one.line) for one in allowances(source)] == [
        ("MX012", REASON, 2),
        ("nothing", "", 3),
    ]
    assert allowances("def (") == []
    assert allowances("x = '''") == []


def test_only_an_error_that_is_not_allowed_keeps_a_script_out() -> None:
    (error,) = violations(data(CLOCK))
    (allowed,) = violations(data(f"{CLOCK}  # allow: MX012 {REASON}"))
    (warning,) = violations(data("ctx.report('x')\nctx.databases.app['a'].estimated_document_count()"))

    assert [one.is_refused for one in (error, allowed, warning)] == [True, False, False]
    assert [one.severity for one in (error, warning)] == [Severity.ERROR, Severity.WARNING]


def test_rules_can_be_switched_off_and_files_chosen() -> None:
    first, second = data(CLOCK, number=1), data(CLOCK, number=2)
    scripts = [parse_script(sample.file, sample.source) for sample in (second, first)]

    assert [one.file for one in lint(scripts)] == [first.file, second.file]
    assert [one.file for one in lint(scripts, files={second.file})] == [second.file]
    assert lint(scripts, off=("MX012",)) == ()


def test_a_script_that_is_no_python_has_one_finding() -> None:
    assert codes(Sample("v001_pre_a.py", "def up(ctx)\n")) == ["MX001"]
    assert codes(Sample("v001_pre_a.py", "x = '\x00'\n")) == ["MX001"]


def test_findings_come_in_the_order_of_the_lines() -> None:
    lines = [one.line for one in violations(data(f"{CLOCK}\nprint(1)\n{CLOCK}"))]

    assert lines == sorted(lines)
    assert len(lines) == 3


def test_the_registry_lists_the_rules_in_the_order_of_their_codes() -> None:
    assert list(RULES) == sorted(RULES)
