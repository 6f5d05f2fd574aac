"""collected: each remote file has its own path, with the suffix of its name."""

from tunepress.remote.collected import local_paths, remote_lists

URLS = ["abfs://rows/a/tone.jsonl", "https://example.org/my%20tone.csv?download=true", "abfs://rows/b/tone.jsonl"]


def test_files_of_the_same_name_have_different_paths() -> None:
    assert local_paths(URLS, "files") == [
        "data/collected/files/1-tone.jsonl",
        "data/collected/files/2-my_tone.csv",
        "data/collected/files/3-tone.jsonl",
    ]


def test_a_path_stays_what_it_is_and_moves_no_other() -> None:
    assert local_paths(["rows.csv", URLS[0], "more.csv"], "test_files") == [
        "rows.csv",
        "data/collected/test_files/1-tone.jsonl",
        "more.csv",
    ]


def test_a_file_named_twice_is_collected_once() -> None:
    assert len(set(local_paths([URLS[0], URLS[0]], "files"))) == 1


def test_the_lists_with_addresses_are_the_remote_ones() -> None:
    assert remote_lists(["rows.csv"], [], [], []) == []
    assert remote_lists(["rows.csv", *URLS], [], [], []) == ["files"]
    assert remote_lists(["rows.csv"], [], URLS, []) == ["test_files"]
    assert remote_lists(URLS, URLS, URLS, URLS) == ["files", "validation_files", "test_files", "calibration_files"]
