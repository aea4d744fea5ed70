from benchmarks.importing import measure_import


def test_a_small_account_is_imported_whole_and_once() -> None:
    report = measure_import(tickets=200, threads=2, step=lambda _text, _share: None)
    assert (report["missing"], report["added_again"]) == (0, 0)
    assert (report["first"]["added"], report["second"]["unchanged"]) == (180, 180)
    assert report["tickets_per_second"] > 0
    assert report["memory_growth_mb"] >= 0
