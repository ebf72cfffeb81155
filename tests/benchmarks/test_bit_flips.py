"""The table of flipped bits is made from runs."""

from benchmarks.bit_flips import CHOSEN, rates, row, run, seen_by_fingerprint

STORM = "params: exponent, highest"


def test_a_row_says_who_survives_and_what_is_seen() -> None:
    task = "deep_mlp"
    rate = rates()[task]
    some = {"adamw": CHOSEN["adamw"], "gs.guard(adamw)": CHOSEN["gs.guard(adamw)"]}
    found = {(task, name): run(task, name, rate, [STORM], range(100, 101)) for name in some}
    name, bare, guarded, touched, seen = row(STORM, found, some).split(" | ")
    assert name == STORM
    assert bare.startswith("0%")
    assert guarded.startswith("0%")  # no step can mend a parameter of 1e38
    assert int(touched.removesuffix("%")) > 0
    assert seen == "100%"


def test_a_fingerprint_sees_the_smallest_flip() -> None:
    assert seen_by_fingerprint("gradient: mantissa, middle", steps=200) == 1.0
