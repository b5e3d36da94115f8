"""The contract, threads and random calls: C programs, plain, with sanitizers and under Valgrind."""

from __future__ import annotations

import os
import random

import pytest
from conftest import HERE, run, tool

ADDRESS = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
THREAD = ["-O1", "-fsanitize=thread"]
# ThreadSanitizer sees the C program and the callback. It cannot see Rust's locks, which are futexes and not pthread's,
# and would report everything inside the libraries as a race.
TSAN_OPTIONS = "ignore_noninstrumented_modules=1 halt_on_error=0 exitcode=66"


def seconds_and_seed() -> tuple[str, str]:
    """The run's seconds and seed: short and constant by default, longer and random in `make fuzz-c-api`."""
    longer = os.environ.get("NVEMBED_FUZZ_SECONDS")
    seed = os.environ.get("NVEMBED_FUZZ_SEED") or (str(random.randrange(1, 1 << 32)) if longer else "1")
    return longer or "20", seed


@pytest.mark.parametrize("flags", [["-O2"], ADDRESS], ids=["plain", "address and undefined"])
def test_the_contract_is_kept(flags, compiled, environment, model, tmp_path):
    run([compiled("contract", *flags), model, tmp_path], env=environment)


def test_the_contract_is_kept_under_valgrind_without_errors_and_leaks(compiled, environment, model, tmp_path):
    options = ["--leak-check=full", "--errors-for-leak-kinds=definite,indirect,possible", "--error-exitcode=9"]
    suppressions = f"--suppressions={HERE / 'valgrind.supp'}"
    done = run(
        [tool("valgrind"), *options, suppressions, compiled("contract", "-O2"), model, tmp_path], env=environment
    )
    assert b"ERROR SUMMARY: 0 errors" in done.stderr


@pytest.mark.parametrize("flags", [["-O2"], ADDRESS, THREAD], ids=["plain", "address and undefined", "thread"])
def test_threads_share_handles(flags, compiled, environment, model):
    run([compiled("threads", *flags), model], env=environment | {"TSAN_OPTIONS": TSAN_OPTIONS})


def test_the_thread_sanitizer_would_report_a_race_in_the_program(compiled, environment, model):
    program = compiled("threads", *THREAD, "-DWITH_A_RACE")
    done = run([program, model], ok=False, env=environment | {"TSAN_OPTIONS": TSAN_OPTIONS})
    assert done.returncode == 66
    assert b"data race" in done.stderr
    assert b"on_log" in done.stderr


def test_random_calls_return_codes_and_do_not_crash(compiled, environment, model):
    seconds, seed = seconds_and_seed()
    done = run([compiled("fuzz", *ADDRESS), model, seconds, seed], env=environment, timeout=int(seconds) + 120)
    print(done.stdout.decode())
