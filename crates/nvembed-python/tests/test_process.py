"""Threads, signals, forks and event loops."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from conftest import MODEL, TEXTS
from nvembed import DeadlineExceededError, Embedder, ForkedError, OptionError, TooLongError


def script(code: str, *arguments: str) -> subprocess.Popen:
    head = f"from nvembed import Embedder\nmodel = Embedder({str(MODEL)!r})\n"
    command = [sys.executable, "-c", head + textwrap.dedent(code), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_other_threads_go_on_during_a_run(model):
    counts, over = [0], threading.Event()

    def count():
        while not over.is_set():
            counts[0] += 1
            time.sleep(0.0005)

    thread = threading.Thread(target=count)
    thread.start()
    before = counts[0]
    model.encode(TEXTS * 40)
    during = counts[0] - before
    over.set()
    thread.join()
    # With Python's lock held there would be none.
    assert during > 20


def test_threads_share_a_model(model):
    wanted, found = model.encode(TEXTS), {}

    def embed(number):
        found[number] = model.encode(TEXTS)

    threads = [threading.Thread(target=embed, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(np.array_equal(rows, wanted) for rows in found.values())


def test_ctrl_c_ends_a_run():
    process = script(
        """
        print("ready", flush=True)
        try:
            model.encode(["a long text " * 300] * 3000)
            print("finished")
        except KeyboardInterrupt:
            print("interrupted", model.encode("a").shape)
        """
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert out == "interrupted (256,)\n", errors


def test_a_forked_child_gets_an_error_that_says_what_to_do():
    process = script(
        """
        import os
        from nvembed import ForkedError
        child = os.fork()
        if child == 0:
            try:
                model.encode("a")
            except ForkedError as error:
                print(error, flush=True)
            del model
            print("and it ended", flush=True)
            os._exit(0)
        print(os.waitpid(child, 0)[1], model.encode("a").shape)
        """
    )
    out, errors = process.communicate(timeout=60)
    assert "spawn" in out, (out, errors)
    assert "and it ended\n0 (256,)\n" in out
    assert issubclass(ForkedError, RuntimeError)


def test_tasks_get_their_own_rows(model):
    texts = [f"text number {number} of many" for number in range(100)]
    wanted = model.encode_query(texts)

    async def all_of_them():
        return await asyncio.gather(*(model.aencode_query(text) for text in texts))

    found = np.stack(asyncio.run(all_of_them()))
    assert np.abs(found - wanted).max() <= 1e-6
    rows = asyncio.run(model.aencode_document(TEXTS, precision="ubinary", truncate_dim=64))
    assert np.array_equal(rows, model.encode(TEXTS, precision="ubinary", truncate_dim=64))


def test_a_cancelled_task_gives_up_its_rows_and_the_loop_goes_on(model):
    async def cancel():
        task = asyncio.create_task(model.aencode(["a long text " * 200] * 500))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await model.aencode("a", timeout=30)

    assert asyncio.run(cancel()).shape == (256,)


def test_a_timeout_is_a_timeout_error(model):
    async def late():
        with pytest.raises(TimeoutError):
            await model.aencode(["a long text " * 200] * 500, timeout=0.05)
        with pytest.raises(OptionError, match="no time to wait"):
            await model.aencode("a", timeout=-1)

    asyncio.run(late())
    assert issubclass(DeadlineExceededError, TimeoutError)


def test_errors_arrive_in_the_task():
    model = Embedder(MODEL, max_seq_length=4, truncation="error")

    async def too_long():
        with pytest.raises(TooLongError):
            await model.aencode(TEXTS[1])

    asyncio.run(too_long())


def test_a_thousand_calls_take_no_memory(model):
    for _ in range(100):
        model.encode(TEXTS[:2])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(1000):
        model.encode(TEXTS[:2])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 << 10  # KiB


def test_importing_the_package_imports_no_framework():
    code = "import nvembed, sys; print(sorted({'torch', 'onnxruntime', 'onnx', 'mteb', 'tqdm'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert out.stdout == "[]\n"
