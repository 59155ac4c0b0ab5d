"""JSONPath's singular queries: what they find, where they end, and what is no path of ours."""

from typing import Any

import pytest

from sequencer.json_path import JsonPath, JsonPathError

DOCUMENT: dict[str, Any] = {
    "a": {"b": [{"c": 1}, {"c": [2, 3]}], "índice": 4, "_1": None},
    "with space": {"it's": 5, 'quo"te': 6, "back\\slash": 7, "": 8, "0": 9},
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("$", DOCUMENT),
        ("$.a.b[0]['c']", 1),
        ("$.a.b[1].c[-1]", 3),
        ("$['a'][\"b\"][-2].c", 1),
        ("$.a.índice", 4),
        ("$.a._1", None),
        ("$['with space']['it\\'s']", 5),
        ("$['with space'][\"it's\"]", 5),
        ('$["with space"]["quo\\"te"]', 6),
        ("$['with space']['back\\\\slash']", 7),
        ("$['with space']['']", 8),
        ("$['with space']['0']", 9),
    ],
)
def test_paths_lead_to_values(path: str, value: Any) -> None:
    assert JsonPath.parse(path).find(DOCUMENT) == value


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("$.x", "$ has no 'x'"),
        ("$.a.b[2]", "$['a']['b'] has no 2"),
        ("$.a.b[-3]", "has no -3"),
        ("$.a.b.c", "$['a']['b'] is not an object"),
        ("$.a[0]", "$['a'] is not an array"),
        ("$['with space'][0]", "is not an array"),
        ("$.a.b[0].c.d", "$['a']['b'][0]['c'] is not an object"),
    ],
)
def test_the_first_step_that_leads_nowhere_is_named(path: str, said: str) -> None:
    with pytest.raises(JsonPathError) as caught:
        JsonPath.parse(path).find(DOCUMENT)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "path",
    [
        *("", "a", ".a", "$a", "$.", "$..a", "$.*", "$[*]", "$[0:2]", "$[?@.a]", "$['a','b']", "$[01]"),
        *("$[-0]", "$[+1]", "$['a]", "$[a]", "$.1a", "$.a ", "$ .a", "$['a\\n']", "$[1234567890]", "$.a[]"),
        "$" + ".a" * 300,
    ],
)
def test_what_can_give_many_values_or_none_is_refused(path: str) -> None:
    with pytest.raises(JsonPathError, match="path"):
        JsonPath.parse(path)
