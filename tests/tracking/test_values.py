from cldmray.tracking.values import clean_key, clean_metric, flat_params, flat_tags, shortened


def test_metric_names_that_mlflow_would_refuse() -> None:
    assert clean_metric("risk/cldm-canny-1.0+depth-0.7") == "risk/cldm-canny-1.0_depth-0.7"
    assert clean_metric("a/b c_1.0-x") == "a/b c_1.0-x"


def test_params_are_flat_short_and_without_secrets() -> None:
    settings = {
        "faces": {"name": "lfw", "crop": [1, 2], "root": None},
        "anonymizers": {"cldm-canny-1.0+depth-0.7": {"scale": 0.5}},
        "empty": {},
        "hub": {"token": "abc"},
        "uri": "http://me:pw@host",
    }
    assert flat_params(settings) == {
        "faces.name": "lfw",
        "faces.crop": "[1, 2]",
        "faces.root": "null",
        "anonymizers.cldm-canny-1.0_depth-0.7.scale": "0.5",
        "empty": "{}",
        "hub.token": "***",
        "uri": "http://***@host",
    }
    assert flat_params({}) == {}


def test_long_values_are_cut_and_still_differ() -> None:
    long, other = "a" * 501, "a" * 502
    assert len(shortened(long)) == 500
    assert shortened(long) != shortened(other)
    assert shortened("a" * 500) == "a" * 500
    assert len(clean_key("k" * 300)) == 250


def test_tags_are_freed_of_secrets() -> None:
    assert flat_tags({"api_key": "x", "note": "at http://a:b@c", "n": 3}) == {
        "api_key": "***",
        "note": "at http://***@c",
        "n": "3",
    }
