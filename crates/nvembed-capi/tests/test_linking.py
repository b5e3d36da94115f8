"""The examples, built in every supported way, from an installed tree that was packed and moved."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import numpy
import pytest
from conftest import CRATE, ROOT, WARNINGS, run, tool

COMPILERS = {"c": ("cc", "-std=c99"), "cpp": ("c++", "-std=c++17")}
WAYS = ["pkg-config", "pkg-config static", "cmake", "cmake static", "archive"]
LINES = [f"line {index}: {'rain ' * (index % 7)}" for index in range(100)]


@pytest.fixture(scope="session")
def moved(prefix, tmp_path_factory):
    """The installed tree, moved with tar. Nothing in it names its original place."""
    place = tmp_path_factory.mktemp("moved")
    run([tool("tar"), "-C", prefix, "-cf", place / "tree.tar", "."])
    tree = place / "a folder with spaces"
    tree.mkdir()
    run([tool("tar"), "-C", tree, "-xf", place / "tree.tar"])
    for file in [*tree.glob("lib/pkgconfig/*"), *tree.glob("lib/cmake/*/*")]:
        assert str(prefix) not in file.read_text()
    return tree


EXAMPLES = {"c": ["score", "service"], "cpp": ["score", "service", "rescore"]}


@pytest.fixture(scope="session", params=[(language, way) for language in COMPILERS for way in WAYS], ids=" ".join)
def programs(request, moved, tmp_path_factory):
    """The folder of the built examples, and the environment in which they find the library."""
    language, way = request.param
    build = tmp_path_factory.mktemp("examples")
    source = CRATE / "examples" / language
    is_static = way.endswith("static") or way == "archive"
    if way.startswith("cmake"):
        target = "nvembed::nvembed_static" if is_static else "nvembed::nvembed"
        arguments = [f"-DCMAKE_PREFIX_PATH={moved}", f"-DNVEMBED_LIBRARY={target}", "-DCMAKE_SKIP_RPATH=ON"]
        run([tool("cmake"), "-S", source, "-B", build, *arguments])
        run(["cmake", "--build", build])
    else:
        compiler, standard = COMPILERS[language]
        if way == "archive":
            libraries = [moved / "lib/libnvembed.a", "-lgcc_s", "-lpthread", "-lm", "-ldl"]
            flags = [f"-I{moved}/include"]
        else:
            name = "nvembed-static" if is_static else "nvembed"
            # pkg-config quotes the tree's path, which has spaces.
            found = pkg_config(moved, "--cflags", "--libs", name)
            flags, libraries = [], shlex.split(found)
        for example in EXAMPLES[language]:
            suffix = {"c": ".c", "cpp": ".cpp"}[language]
            command = [tool(compiler), standard, *WARNINGS, "-pthread", *flags, source / f"{example}{suffix}"]
            run([*command, "-o", build / example, *libraries])
    needed = run([tool("readelf"), "--dynamic", build / "score"]).stdout
    assert (b"[libnvembed.so.0]" in needed) != is_static
    return build, {} if is_static else {"LD_LIBRARY_PATH": str(moved / "lib")}


def pkg_config(tree, *arguments) -> str:
    environment = os.environ | {"PKG_CONFIG_PATH": str(tree / "lib/pkgconfig")}
    return run([tool("pkg-config"), *arguments], env=environment).stdout.decode()


def test_the_score_example_ranks_the_right_answer_first(programs, environment, model):
    folder, library = programs
    lines = run([folder / "score", model], env=environment | library).stdout.decode().splitlines()
    table = [[float(number) for number in line.split()[:2]] for line in lines]
    assert table[0][0] > table[0][1] + 10
    assert table[1][1] > table[1][0] + 10


@pytest.mark.parametrize("programs", [("cpp", "cmake")], ids=" ".join, indirect=True)
def test_the_rescoring_example_finds_the_nearest_passages(programs, program, environment, model, tmp_path):
    folder, library = programs
    rows = [json.loads(line) for line in (ROOT / "tests/eval/faq.jsonl").read_text().splitlines()[:30]]
    passages, task = tmp_path / "passages.txt", "Given a question, retrieve passages that answer the question"
    passages.write_text("\n".join(row["passage"] for row in rows))
    array = lambda *arguments: numpy.load(run_embed(program, model, environment, tmp_path, *arguments))  # noqa: E731
    floats = array(passages)
    for query in [rows[0]["query"], rows[17]["query"]]:
        question = tmp_path / "query.txt"
        question.write_text(query)
        cosines = floats @ array(question, "--task", task)[0]
        wanted = numpy.argsort(-cosines)[:10]
        done = run([folder / "rescore", model, passages, task, query], env=environment | library)
        found = [line.split() for line in done.stdout.decode().splitlines()]
        # All passages are candidates, so only the rounding to 8 bits is left.
        assert {int(row) - 1 for row, _ in found[:5]} <= set(wanted)
        for row, cosine in found:
            assert abs(float(cosine) - cosines[int(row) - 1]) < 0.005


def run_embed(program, model, environment, folder, *arguments) -> Path:
    run(
        [program, "embed", "-q", "-m", model, "--format", "lines", *arguments, "-o", folder / "rows.npy"],
        env=environment,
    )
    return folder / "rows.npy"


def test_the_service_example_answers_every_line_with_the_numbers_of_the_program(
    programs, environment, model, expected_service
):
    folder, library = programs
    text = "\n".join(LINES).encode()
    for workers in ["1", "5"]:
        done = run([folder / "service", model, workers], env=environment | library, input=text)
        answers = sorted((line.split() for line in done.stdout.decode().splitlines()), key=lambda words: int(words[0]))
        assert [(int(line), int(tokens)) for line, tokens, _ in answers] == [
            (index, tokens) for index, (tokens, _) in enumerate(expected_service)
        ]
        for (_, _, first), (_, expected) in zip(answers, expected_service, strict=True):
            # Batches depend on when requests arrive, and rounding depends on the batch.
            assert abs(float(first) - expected) <= 1e-6


@pytest.fixture(scope="session")
def expected_service(program, environment, model):
    command = [program, "embed", "-m", model, "--format", "lines", "--quiet"]
    lines = run(command, env=environment, input="\n".join(LINES).encode()).stdout.decode().splitlines()
    rows = [json.loads(line) for line in lines]
    return [(row["tokens"], row["embedding"][0]) for row in rows]


def test_a_missing_model_is_one_clear_line(programs, environment):
    folder, library = programs
    for example in ["score", "service"]:
        done = run([folder / example, "no/such/model"], ok=False, env=environment | library, input=b"")
        assert done.returncode == 1
        assert b"no/such/model does not exist" in done.stderr
        assert done.stderr.count(b"\n") == 1


def test_a_missing_onnx_runtime_is_a_clear_error(programs, environment, model):
    folder, library = programs
    missing = environment | library | {"ORT_DYLIB_PATH": "/no/such/libonnxruntime.so"}
    done = run([folder / "score", model], ok=False, env=missing)
    assert done.returncode == 1
    for part in [b"NVEMBED_LIBRARY", b"/no/such/libonnxruntime.so (ORT_DYLIB_PATH): no such file", b"pip install"]:
        assert part in done.stderr


def test_an_interrupted_service_cancels_and_ends(moved, environment, model, tmp_path):
    program = tmp_path / "service"
    command = [tool("cc"), "-std=c99", "-pthread", f"-I{moved}/include", CRATE / "examples/c/service.c", "-o", program]
    run([*command, moved / "lib/libnvembed.a", "-lgcc_s", "-lm", "-ldl"])
    service = subprocess.Popen(
        [program, model], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    service.stdin.write(b"first\n")
    service.stdin.flush()
    assert service.stdout.readline().startswith(b"0 ")
    # It now waits for input, or is about to. The signal may arrive a moment too early, so it is sent again.
    while service.poll() is None:
        service.send_signal(signal.SIGINT)
        time.sleep(0.05)
    assert service.returncode == 1
    service.stdin.close()


def test_the_static_library_links_beside_another_rust_library(moved, environment, model, tmp_path):
    source = tmp_path / "other.rs"
    source.write_text(
        '#[unsafe(no_mangle)]\npub extern "C" fn other_length(n: usize) -> usize {\n'
        '    std::panic::catch_unwind(|| vec![String::from("x"); n].concat().len()).unwrap_or(0)\n}\n'
    )
    run(
        [
            tool("rustc"),
            "--edition=2024",
            "--crate-type=staticlib",
            "-O",
            "-Crelocation-model=pic",
            source,
            "-o",
            tmp_path / "libother.a",
        ]
    )
    main = tmp_path / "main.c"
    main.write_text(
        "#include <nvembed.h>\n#include <string.h>\nsize_t other_length(size_t);\n"
        "int main(int count, char **arguments) {\n  nvembed_model *model = NULL;\n"
        "  if (other_length(5) != 5 || count != 2) return 1;\n"
        "  return nvembed_model_open(arguments[1], strlen(arguments[1]), NULL, &model, NULL);\n}\n"
    )
    for order in [["libnvembed.a", "libother.a"], ["libother.a", "libnvembed.a"]]:
        archives = [moved / "lib" / name if name == "libnvembed.a" else tmp_path / name for name in order]
        command = [tool("cc"), f"-I{moved}/include", main, *archives, "-lgcc_s", "-lpthread", "-lm", "-ldl"]
        run([*command, "-o", tmp_path / "main"])
        run([tmp_path / "main", model], env=environment)


def test_an_incomplete_installation_is_not_found_by_cmake(moved, tmp_path):
    tree = tmp_path / "tree"
    run(["cp", "-a", moved, tree])
    (tree / "lib/libnvembed.a").unlink()
    command = [tool("cmake"), "-S", CRATE / "examples/c", "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={tree}"]
    done = run(command, ok=False)
    assert done.returncode != 0
    assert b"the installation is incomplete" in done.stderr.replace(b"\n ", b"")
