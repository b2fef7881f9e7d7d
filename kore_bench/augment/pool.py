"""Work on many items with a bounded number of threads, each result as soon as it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def each(items: Iterable[T], work: Callable[[T], R], in_flight: int) -> Iterator[R]:
    """Yield ``work(item)`` for every item in the order in which they are done, at most ``in_flight`` at once.

    Items are taken one by one, as threads come free, so that what waits takes no memory. Where an item fails no more
    are begun; those under way are finished and theirs yielded, then the first error is raised.
    """
    if in_flight == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(in_flight, thread_name_prefix="augment") as pool:
        under_way: set[Future[R]] = set()
        failure: BaseException | None = None
        for item in items:
            under_way.add(pool.submit(work, item))
            if len(under_way) < in_flight:
                continue
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            failure = failure or _failure(done)
            yield from _results(done)
            if failure:
                break
        while under_way:
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            failure = failure or _failure(done)
            yield from _results(done)
    if failure:
        raise failure


def _failure(done: set[Future[R]]) -> BaseException | None:
    return next((error for future in done if (error := future.exception())), None)


def _results(done: set[Future[R]]) -> Iterator[R]:
    return (future.result() for future in done if not future.exception())
