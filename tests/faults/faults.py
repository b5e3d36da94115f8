"""What happens now in the cases of real users that once went wrong, as a table.

    python3 tests/faults/faults.py --nvembed target/release/nvembed --model build/models/nv-embed-mini-fp32 \
        --exporter .venv/bin/nvembed-export --checkpoint models/nv-embed-mini

Each case makes its own small inputs in a temporary folder and runs a program. `n` is the number of the
row in the list of faults. A case that needs root, or more than this machine has, says so in the table.
Exits with 1 when a case is not as it should be.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SURROGATE = b'{"text": "broken \\ud83d"}\n'
RECORD = b'{"text":"hello"}\n'
BEIR = b'{"_id": "1", "title": "Homer", "text": "The Odyssey."}\n'
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 4999819336\n"
ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": "nvidia/NV-Embed-v2", "r": 8}


@dataclass
class Case:
    """A row of the table: what is run, and what must come of it."""

    n: str
    what: str
    #: Makes the inputs in the folder and returns the shell command line, with {nv}, {model}, {export} and {checkpoint}.
    prepare: Callable[[Path], str]
    code: int
    #: What the message must name.
    says: str = ""
    #: Holds of the folder afterwards.
    leaves: Callable[[Path], bool] = lambda _: True


def files(command: str, **contents: bytes) -> Callable[[Path], str]:
    """A command line, and input files by name; `__` stands for the dot."""

    def prepare(folder: Path) -> str:
        for name, content in contents.items():
            (folder / name.replace("__", ".")).write_bytes(content)
        return command

    return prepare


def variant(options: str = "", config: dict | None = None, **contents: object) -> Callable[[Path], str]:
    """An export of the checkpoint with other keys in its config.json and further files."""

    def prepare(folder: Path) -> str:
        checkpoint = folder / "checkpoint"
        shutil.copytree(CHECKPOINT, checkpoint)
        if config is not None:
            known = json.loads((checkpoint / "config.json").read_text())
            (checkpoint / "config.json").write_text(json.dumps(known | config))
        for name, content in contents.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            (checkpoint / name.replace("__", ".")).write_bytes(data)
        return f"{{export}} checkpoint out {options}"

    return prepare


def moved(path: str, command: str, config: dict | None = None) -> Callable[[Path], str]:
    """The checkpoint in another folder, with other keys in its config.json, and `modules.json` at the top."""

    def prepare(folder: Path) -> str:
        checkpoint = folder / path
        shutil.copytree(CHECKPOINT, checkpoint)
        known = json.loads((checkpoint / "config.json").read_text())
        known = {key: value for key, value in (known | (config or {})).items() if value is not None}
        (checkpoint / "config.json").write_text(json.dumps(known))
        module = {"idx": 0, "name": "0", "path": Path(path).name, "type": "sentence_transformers.models.Transformer"}
        (folder / path.split("/")[0] / "modules.json").write_text(json.dumps([module]))
        return command

    return prepare


def prefixed(prefix: str) -> Callable[[Path], str]:
    """The checkpoint with a prefix before the name of every tensor."""

    def prepare(folder: Path) -> str:
        checkpoint = folder / "checkpoint"
        shutil.copytree(CHECKPOINT, checkpoint)
        content = (checkpoint / "model.safetensors").read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        names = json.loads(content[8:end])
        names = {name if name == "__metadata__" else prefix + name: place for name, place in names.items()}
        header = json.dumps(names).encode()
        header += b" " * (-len(header) % 8)
        (checkpoint / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + content[end:])
        return "{export} checkpoint out"

    return prepare


def on_file_system(code: str, command: str) -> Callable[[Path], str]:
    """A command line with functions of the C library replaced, as on file systems that are not to be had here."""

    def prepare(folder: Path) -> str:
        includes = "".join(
            f"#include <{name}.h>\n" for name in ("errno", "string", "sys/stat", "sys/statvfs", "unistd")
        )
        (folder / "fs.c").write_text(includes + code)
        return f"cc -shared -fPIC -o fs.so fs.c && LD_PRELOAD=$PWD/fs.so {command}"

    return prepare


NO_FSYNC = """#include <sys/syscall.h>
int fsync(int fd) {
    struct stat s;
    if (!fstat(fd, &s) && S_ISDIR(s.st_mode)) { errno = EINVAL; return -1; }
    return syscall(SYS_fsync, fd);
}
"""
NO_BLOCKS = """int statvfs(const char *path, struct statvfs *s) {
    (void)path;
    memset(s, 0, sizeof *s);
    s->f_frsize = 1;
    return 0;
}
int fstatvfs(int fd, struct statvfs *s) { (void)fd; return statvfs("", s); }
"""


def is_npy(name: str, shape: str) -> Callable[[Path], bool]:
    return lambda folder: (
        (folder / name).read_bytes()[:128].startswith(b"\x93NUMPY") and shape in str((folder / name).read_bytes()[:128])
    )


def dense_modules() -> list[dict]:
    kinds = ["Transformer", "Pooling", "Dense"]
    return [
        {"idx": n, "name": str(n), "path": f"{n}_{kind}" if n else "", "type": f"sentence_transformers.models.{kind}"}
        for n, kind in enumerate(kinds)
    ]


EMBED = "{nv} embed -q -m {model}"
# A user who has no other process; the limit does not hold for root.
FEW_THREADS = "chmod 755 . && setpriv --reuid 54321 --clear-groups prlimit --nproc={} "
MOUNT = "unshare --mount sh -c "
CASES = [
    Case("1", "JSON lines in a file named .JSONL", files(f"{EMBED} UP.JSONL", UP__JSONL=RECORD), 0, '"tokens":4,'),
    Case("2", "JSON lines in a file named .json", files(f"{EMBED} x.json", x__json=RECORD), 3, "--format jsonl"),
    Case("2", "JSON lines by standard input", files(f"cat x | {EMBED}", x=RECORD), 3, "--format jsonl"),
    Case("3", "output named OUT.NPY", files(f"{EMBED} t -o OUT.NPY", t=b"a\n"), 0, "", is_npy("OUT.NPY", "(1, ")),
    Case("4", "an adapter beside full weights", variant(adapter_config__json=ADAPTER), 3, "adapter"),
    Case("5", "a dense layer behind the pooling", variant(modules__json=dense_modules()), 3, "Dense"),
    Case(
        "6", "texts put in lower case", variant(sentence_bert_config__json={"do_lower_case": True}), 3, "do_lower_case"
    ),
    Case(
        "6b",
        "the model is in a folder that modules.json names",
        moved("top/0_Transformer", "{export} top out"),
        3,
        "0_Transformer",
    ),
    Case("7", "a token that the tokenizer has not", variant(added_tokens__json={"<doc>": 32000}), 3, "<doc>"),
    Case(
        "9",
        "a snapshot of the hub's cache, whose config has no name",
        moved(
            "models--nvidia--NV-Embed-v2/snapshots/0123abcd",
            "{export} models--nvidia--NV-Embed-v2/snapshots/0123abcd out",
            {"_name_or_path": None},
        ),
        0,
        "NV-Embed-v2: fp16",
    ),
    Case(
        "10",
        "a fine-tune whose config still says NV-Embed-v2",
        moved(
            "mine",
            "{export} mine out --quiet && {nv} verify -m out --model-card",
            {"_name_or_path": "nvidia/NV-Embed-v2"},
        ),
        2,
        "model-card",
    ),
    Case("11", "bound to one core", files(f"taskset -c 0 {EMBED} t", t=b"a\n"), 0, "embedding"),
    # It depends on the moment which thread is refused, and whether the run can do without it.
    Case("13", "no more than 4 threads", files(FEW_THREADS.format(4) + f"{EMBED} t || [ $? = 6 ]", t=b"a\n"), 0),
    Case("13c", "no more than 3 threads", files(FEW_THREADS.format(3) + f"{EMBED} t", t=b"a\n"), 6, "threads"),
    Case("14", "no /proc, library not named", files(MOUNT + "'umount -l /proc && {nv} inspect'"), 6, "mount it"),
    Case(
        "14",
        "few descriptors",
        files(f"sh -c 'ulimit -n 5 && exec {EMBED} t'", t=b"a\n"),
        6,
        "ulimit -n",
    ),
    Case(
        "15",
        "the output is a mounted file",
        files(
            MOUNT + f"'mount --bind real.npy out.npy && {EMBED} t -o out.npy'", t=b"a\n", real__npy=b"", out__npy=b""
        ),
        0,
        "",
        is_npy("real.npy", "(1, "),
    ),
    Case(
        "16",
        "export into a mount point",
        files(MOUNT + "'mkdir vol && mount -t tmpfs none vol && {export} {checkpoint} vol --force && ls vol'"),
        0,
        "nvembed.json",
    ),
    Case(
        "18",
        "a file system that cannot flush folders",
        on_file_system(NO_FSYNC, "{export} {checkpoint} out && ls out"),
        0,
        "nvembed.json",
    ),
    Case(
        "19",
        "a disk that reports no blocks at all",
        on_file_system(NO_BLOCKS, "{export} {checkpoint} out && ls out"),
        0,
        "nvembed.json",
    ),
    Case(
        "21",
        "a bad record after good ones, skipped",
        files(f"{EMBED} --on-error skip x.jsonl -o x.npy", x__jsonl=RECORD * 3 + SURROGATE),
        0,
        "x.jsonl:4",
        is_npy("x.npy", "(4, "),
    ),
    Case("22", "a later input is missing", files(f"{EMBED} t nope -o x.npy", t=b"a\n"), 3, "nope"),
    Case("23", "half of a surrogate pair", files(f"{EMBED} x.jsonl", x__jsonl=SURROGATE), 3, "at byte 24 of the line"),
    Case(
        "24",
        "what a killed run left, after the next one",
        files(
            "yes many words in a line | head -300000 >many; "
            f"({EMBED} many -o x.npy & sleep 2; kill -9 $!; wait) 2>killed; "
            "ls -A | grep -c partial; touch -d '5 minutes ago' .nvembed-*; "
            f"{EMBED} t -o y.npy",
            t=b"a\n",
        ),
        0,
        "1",
        lambda folder: not [path for path in folder.iterdir() if "partial" in path.name],
    ),
    Case(
        "26",
        "4 MB of spaces, cut at 512 tokens",
        files("printf '%4000000s\\n' x | " + EMBED + " --max-length 512 --format lines"),
        0,
        '"tokens":512,',
    ),
    Case(
        "27",
        "only the weights are a link to another disk",
        files(
            "cp -r {model} linked && mv linked/model.onnx.data there && ln -s ../there linked/model.onnx.data && "
            "{nv} embed -q -m linked t",
            t=b"a\n",
        ),
        4,
        "link",
    ),
    Case("28", "a name that is no text", files("{export} {checkpoint} out --name $'mod\\xe8le'"), 2, "--name is"),
    Case(
        "29",
        "a message that the terminal cannot show",
        files("PYTHONIOENCODING=ascii {export} {checkpoint} 模型 && ls 模型"),
        0,
        "nvembed.json",
    ),
    Case("29", "standard output is full", files("{export} {checkpoint} out >/dev/full && ls out"), 0, "nvembed.json"),
    *(
        Case("30", f"tensors named {prefix}…", prefixed(prefix), 0)
        for prefix in ("model.", "base_model.model.", "module.", "_orig_mod.", "0.auto_model.")
    ),
    Case(
        "31",
        "a folder with an adapter only",
        files("{export} . out", adapter_config__json=json.dumps(ADAPTER).encode()),
        3,
        "adapter",
    ),
    Case("32", "a Git LFS pointer instead of weights", variant(model__safetensors=LFS), 3, "LFS"),
    Case("33", "keys that change nothing", variant(config={"output_hidden_states": True, "num_labels": 1}), 0),
    Case("33", "an unknown key, ignored by an option", variant("--ignore-config-key odd", {"odd": 1}), 0),
    Case(
        "34",
        "an instruction with a literal \\n",
        files(f"{EMBED} t --instruction 'Instruct: X\\nQuery: '", t=b"a\n"),
        0,
        "WARN",
    ),
    Case("35", "UTF-16 with a mark", files(f"{EMBED} t", t="hi\r\n".encode("utf-16")), 3, "UTF-16"),
    Case("36", "a .gz file", files(f"{EMBED} t.gz", t__gz=b"\x1f\x8b\x08\0\0\0\0\0"), 3, "gzip"),
    Case(
        "40",
        "the output is a link that leads nowhere yet",
        files(f"ln -s real.npy link.npy && {EMBED} t -o link.npy", t=b"a\n"),
        0,
        "",
        lambda folder: (folder / "link.npy").is_symlink() and is_npy("real.npy", "(1, ")(folder),
    ),
    Case("37", "an empty shard", files(f"{EMBED} t -o x.npy", t=b""), 3, "--allow-empty"),
    Case(
        "37",
        "an empty shard, allowed by an option",
        files(f"{EMBED} t -o x.npy --allow-empty", t=b""),
        0,
        "",
        is_npy("x.npy", "(0, "),
    ),
    Case("38", "fields of BEIR", files(f"{EMBED} x.jsonl", x__jsonl=BEIR), 3, "--ignore-unknown-fields"),
    Case("38", "fields of BEIR, passed over", files(f"{EMBED} --ignore-unknown-fields x.jsonl", x__jsonl=BEIR), 0),
    Case("43", "a name with control characters", files("{export} {checkpoint} out --name $'a\\033b'"), 2, "--name is"),
]


def outcome(case: Case, programs: dict[str, str]) -> tuple[str, str]:
    """What happened, and whether it is right."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = case.prepare(folder)
        for key, value in programs.items():
            command = command.replace(f"{{{key}}}", value)
        done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, timeout=300, check=False)
        text = (done.stderr + done.stdout).decode(errors="replace")
        if re.search(r"unshare: |umount: |mount: |setpriv: |command not found", text):
            return f"not run here: {text.splitlines()[0]}", "–"
        right = (
            done.returncode == case.code and case.says in text and "panicked" not in text and "Traceback" not in text
        )
        right = right and (done.returncode != 0 or case.leaves(folder))
        message = (
            ""
            if done.returncode == 0 and not case.says
            else next(
                (line for line in text.splitlines() if case.says and case.says in line), text.strip().splitlines()[0]
            )
        )
        message = message.replace(name, "…").replace("|", "\\|")
        for value in programs.values():
            message = message.replace(value, Path(value).name)
        message = re.sub(r"^\S+Z +(WARN)", r"\1", message)
        if message.startswith('{"index"'):
            message = message.split(',"embedding"')[0] + ", …"
        message = message[:200] + ("…" if len(message) > 200 else "")
        return f"exit {done.returncode}" + (f": {message}" if message else ""), "yes" if right else "**no**"


def main() -> int:
    global CHECKPOINT
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("nvembed", "model", "exporter", "checkpoint"):
        parser.add_argument(f"--{name}", required=True, type=lambda path: str(Path(path).absolute()))
    parser.add_argument("--only", help="the numbers of rows, with commas")
    given = parser.parse_args()
    CHECKPOINT = given.checkpoint
    programs = {"nv": given.nvembed, "model": given.model, "export": given.exporter, "checkpoint": given.checkpoint}
    wrong = 0
    print("| n | case | what happens now | as it should be |\n|---|---|---|---|")
    for case in CASES:
        if given.only and case.n not in given.only.split(","):
            continue
        happened, right = outcome(case, programs)
        wrong += right == "**no**"
        print(f"| {case.n} | {case.what} | {happened} | {right} |", flush=True)
    return min(wrong, 1)


CHECKPOINT = ""

if __name__ == "__main__":
    sys.exit(main())
