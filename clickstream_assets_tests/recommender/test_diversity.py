import numpy as np
import pytest

from clickstream_assets.recommender.diversity import category_likeness, diversified


def test_likeness_is_the_part_of_the_path_that_two_categories_share() -> None:
    found = category_likeness(["toys.wood", "toys.wood", "toys.wood.cars", "toys", "books", None, None])
    expected: list[list[float]] = [
        [1, 1, 4 / 5, 2 / 3, 0, 0, 0],
        [1, 1, 4 / 5, 2 / 3, 0, 0, 0],
        [4 / 5, 4 / 5, 1, 2 / 4, 0, 0, 0],
        [2 / 3, 2 / 3, 2 / 4, 1, 0, 0, 0],
        [0, 0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 1],
    ]
    assert found == pytest.approx(np.array(expected))


@pytest.mark.parametrize(
    ("diversity", "expected"),
    [(0, [0, 1, 2, 3]), (0.2, [0, 1, 3, 2]), (0.5, [0, 3, 4, 1]), (1, [0, 3, 4, 1])],
)
def test_the_more_diversity_the_sooner_another_category_comes(diversity: float, expected: list[int]) -> None:
    likeness = category_likeness(["toys", "toys", "toys", "books", "food"])
    assert diversified(likeness, 4, diversity) == expected


def test_fewer_than_wanted_are_all_picked_once() -> None:
    assert sorted(diversified(category_likeness(["toys"] * 3), 10, 0.7)) == [0, 1, 2]
    assert diversified(category_likeness([]), 10, 0.7) == []
