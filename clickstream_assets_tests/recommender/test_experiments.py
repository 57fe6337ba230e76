"""Experiments as they are declared, and the arm of a unit."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from clickstream_assets.errors import InputError
from clickstream_assets.recommender.experiments import (
    Experiment,
    Serves,
    assigned,
    bucket_of,
    parse_experiments,
)

DECLARED = """
[[experiment]]
name = "lists-or-popular"
start = 2026-06-01T00:00:00Z
end = 2026-07-01T02:00:00+02:00
window_hours = 48

[[experiment.arms]]
name = "control"
share = 0.5

[[experiment.arms]]
name = "popular"
share = 0.25
serves = "popularity"

[[experiment]]
name = "aa"
start = 2026-06-01T00:00:00Z
who = ["visitors"]
arms = [{name = "a", share = 0.5}, {name = "b", share = 0.5}]
"""
START = datetime(2026, 6, 1, tzinfo=UTC)


def parse(text: str) -> tuple[Experiment, ...]:
    return parse_experiments(text, "EXPERIMENTS=x.toml")


def test_a_declaration_is_read_with_its_defaults():
    first, second = parse(DECLARED)
    assert (first.name, first.salt, first.metric, first.window) == (
        *("lists-or-popular", "", "conversion"),
        timedelta(hours=48),
    )
    assert (first.start, first.end) == (START, datetime(2026, 7, 1, tzinfo=UTC))
    assert [(arm.name, arm.buckets, arm.serves) for arm in first.arms] == [
        ("control", 5000, Serves.CONTROL),
        ("popular", 2500, Serves.POPULARITY),
    ]
    assert (second.who, second.end) == (("visitors",), None)
    assert parse("") == ()


@pytest.mark.parametrize(
    ("name", "salt", "unit", "bucket"),
    [
        # The first 13 digits that `printf %s aa::u1 | sha256sum` prints.
        ("aa", "", "u1", 0x0F3EFAF6ED0FF % 10_000),
        ("aa", "", "anonymous:7c1", 0x623DDA28DA282 % 10_000),
        ("lists-or-popular", "2", "ü 🐍", 0x64AE091ED0613 % 10_000),
    ],
)
def test_the_part_of_a_unit_is_what_the_documented_formula_gives(
    name: str, salt: str, unit: str, bucket: int
):
    assert bucket_of(name, salt, unit) == bucket


def test_arms_have_their_shares_and_are_another_for_another_experiment_or_salt():
    experiment, _ = parse(DECLARED)
    units = [f"u{n}" for n in range(20_000)]
    arms = {unit: arm.name if (arm := experiment.arm_of(unit)) else None for unit in units}
    counts = Counter(arms.values())
    # Four standard deviations of the widest.
    for name, share in (("control", 0.5), ("popular", 0.25), (None, 0.25)):
        assert abs(counts[name] - share * len(units)) < 4 * (len(units) * share * (1 - share)) ** 0.5
    for other in (
        experiment.model_copy(update={"salt": "2"}),
        experiment.model_copy(update={"name": "another"}),
    ):
        same = sum(arms[unit] == (arm.name if (arm := other.arm_of(unit)) else None) for unit in units)
        # As often as by chance: 1/4 + 1/16 + 1/16.
        assert abs(same / len(units) - 0.375) < 0.02


def test_a_unit_is_in_the_first_experiment_that_runs_is_for_it_and_has_an_arm_for_it():
    experiments = parse(DECLARED)
    first, second = experiments
    units = [f"anonymous:{n}" for n in range(100)]
    inside = {unit for unit in units if first.arm_of(unit)}
    assert 0 < len(inside) < 100
    for unit in units:
        found = assigned(experiments, unit, START)
        assert found
        assert found.experiment is (first if unit in inside else second)
        assert assigned(experiments, unit, START - timedelta(seconds=1)) is None
        later = assigned(experiments, unit, START + timedelta(days=30))
        assert later
        assert later.experiment is second
    # The second is for visitors only.
    left = [unit for unit in (f"u{n}" for n in range(100)) if not first.arm_of(unit)]
    assert {assigned(experiments, unit, START) for unit in left} == {None}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[[experiment]]", "[[experiment", "EXPERIMENTS=x.toml is no TOML"),
        ("[[experiment]]\nname", "[experiments]\nx = 1\n[[experiment]]\nname", "'experiments' means nothing"),
        ('"aa"', '"lists-or-popular"', "two experiments are called lists-or-popular; rename one"),
        ("2026-06-01T00:00:00Z\nend", "2026-06-01\nend", "experiment 1 (lists-or-popular):\n  start="),
        ("2026-06-01T00:00:00Z\nend", "2026-06-01\nend", "write it as 2026-06-01T00:00:00Z"),
        ("2026-07-01", "2025-07-01", "when or before it starts; set a later end"),
        ("0.25", "0.75", "the shares of its arms come to 1.25; lower them to 1 or less"),
        ("0.25", "0.33333", "arms.2.share=0.33333: has more than four decimals; round it"),
        ("0.25", "0", "arms.2.share=0"),
        (
            '"popularity"',
            '"magic"',
            "arms.2.serves='magic': is nothing that an arm can serve; write one of control, lists, session",
        ),
        ('name = "popular"', 'name = "control"', "two arms are called control"),
        ('name = "popular"\n', "", "arms.2.name is missing"),
        ("window_hours", "window", "window means nothing here; take it out"),
        ('name = "aa"', 'name = "A A"', "name='A A': String should match pattern"),
        ('["visitors"]', "[]", "who=[]"),
        (', {name = "b", share = 0.5}', "", "experiment 2 (aa):\n  arms=["),
    ],
)
def test_what_cannot_be_used_is_named_with_what_to_do(old: str, new: str, said: str):
    with pytest.raises(InputError) as caught:
        parse(DECLARED.replace(old, new, 1))
    assert said in str(caught.value)
    assert "EXPERIMENTS=x.toml" in str(caught.value)
