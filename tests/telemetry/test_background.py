"""Calls to a server that is slow, away, or gives up: the training neither waits nor ends."""

import threading
import warnings

from gradstable._src.telemetry.background import Background


def test_calls_are_made_in_order_and_none_is_lost() -> None:
    made: list[int] = []
    background = Background("Server")
    for number in range(100):
        background.put(lambda number=number: made.append(number), (number, number))
    assert background.close()
    assert made == list(range(100))


def test_a_server_that_hangs_holds_up_nobody() -> None:
    """Pitfall: with its server away, MLflow tried for eight minutes at each reading."""
    back, here = threading.Event(), threading.get_ident()
    threads: list[int] = []

    def hang() -> None:
        threads.append(threading.get_ident())
        back.wait()

    background = Background("Server", most=3)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for step in range(1, 6):
            background.put(hang, (step, step))
        assert not background.close(seconds=0.01)
    back.set()
    assert [str(one.message) for one in told] == [
        "Server failed, but training continues: 3 calls are waiting.",
        "Server failed 5 times. It lacks steps 1 to 5.",
    ]
    assert here not in threads


def test_what_fails_is_one_warning_and_the_rest_is_sent() -> None:
    made: list[int] = []

    def call(number: int) -> None:
        if number in (3, 4):
            raise ConnectionError("refused")
        made.append(number)

    background = Background("Server")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for number in range(1, 9):
            background.put(lambda number=number: call(number), (number, number))
        assert background.close()
    assert made == [1, 2, 5, 6, 7, 8]
    assert [str(one.message) for one in told] == [
        "Server failed, but training continues: ConnectionError: refused.",
        "Server failed 2 times. It lacks steps 3 to 4.",
    ]


def test_without_a_call_there_is_no_thread() -> None:
    background = Background("Server")
    assert background.close()
    assert not background._thread.is_alive()
