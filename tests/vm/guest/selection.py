"""A pytest plugin for the guest: of the end-to-end tests, those marked `vm`; of the others, all."""

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    end_to_end = config.rootpath / "tests" / "e2e"
    left_out = [
        item
        for item in items
        if end_to_end in item.path.parents and item.get_closest_marker("vm") is None
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
