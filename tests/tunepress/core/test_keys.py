"""keys: nested keys as dotted names."""

import json

from tunepress.core.keys import flatten


def test_flat_keys_are_those_of_the_tree() -> None:
    tree = {"a": {"b": 1, "c": {}}, "d": [{"e": 2}], "f": None}
    assert json.dumps(flatten(tree)) == json.dumps({"a.b": 1, "a.c": {}, "d": [{"e": 2}], "f": None})
