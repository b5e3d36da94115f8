"""Write the committed evaluation files from the packages that contain their data.

    python tests/eval/make.py            # write faq.jsonl, wordnet.jsonl, similarity.jsonl, LICENSE-wordnet.txt
    python tests/eval/make.py --check    # write nothing; exit 1 if a committed file differs from what would be written
    python tests/eval/make.py --local    # write the sets that are not redistributed here to build/eval/

Needs `apt-get` and `dpkg-deb` (Debian 12, after `apt-get update`) and `pip`. Packages are downloaded and unpacked in
build/eval/; nothing is installed. Uses only the standard library.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build" / "eval"

WORDNET_SHA256 = "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752"
FAQ_SHA256 = "716a1999dd5ad8494c6a4e47d3510f017aa767ea9e55d3b348b0ad70b0e8d3d7"
PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")
HELD_OUT = 2000
PAIRS_PER_BIN = 100
# gensim's copies of sets whose licence does not, or may not, allow redistribution: read locally, never committed.
GENSIM_SHA256 = {
    "wordsim353.tsv": "f92a022fc2537793a15bc3a8c162ebcd74990e033a228bb6388cb71e4c0b1e1d",
    "simlex999.txt": "d5e0501971478a511430ee880bd0121e94ac701ba86d90544d83e6d2ba3db05d",
    "lee.cor": "a878f9a58f6743c32985c56c2f2f75988386216b38a4023a01fd3bcf7884d93e",
    "similarities0-1.txt": "23762bc6b728897144dda3d324a2c032dc1e059e1009806226d64b6dd123ed79",
}


def apt(package, pattern, digest):
    """The folder of an unpacked Debian package, which is downloaded once and whose SHA-256 must be `digest`."""
    BUILD.mkdir(parents=True, exist_ok=True)
    root = BUILD / "root"
    if not list(BUILD.glob(pattern)):
        subprocess.run(["apt-get", "download", "-qq", package], cwd=BUILD, check=True)
    (deb,) = BUILD.glob(pattern)
    check_digest(deb, deb.read_bytes(), digest)
    subprocess.run(["dpkg-deb", "-x", deb, root], check=True)
    return root


def wheel(requirement, pattern):
    """The path of a PyPI requirement's wheel, which is downloaded once and never installed."""
    BUILD.mkdir(parents=True, exist_ok=True)
    if not list(BUILD.glob(pattern)):
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", requirement]
        subprocess.run(command, cwd=BUILD, check=True)
    (path,) = BUILD.glob(pattern)
    return path


def check_digest(name, data, expected):
    actual = sha256(data).hexdigest()
    if actual != expected:
        sys.exit(f"{name}: sha256 is {actual}, expected {expected}; delete the download in {BUILD} and try again")


def squash(text):
    return re.sub(r"\s+", " ", text).strip()


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


class Synset:
    """One line of a WordNet 3.0 `data.*` file (format: WordNet's wndb(5) manual)."""

    def __init__(self, part_of_speech, line):
        head, text = line.rstrip("\n").split("| ", 1)
        fields = head.split()
        lemma_count = int(fields[3], 16)
        self.key = (part_of_speech, fields[0])
        # An adjective may have a syntactic marker, as in `galore(ip)`.
        self.lemmas = [re.sub(r"\(\w+\)$", "", w).replace("_", " ") for w in fields[4 : 4 + 2 * lemma_count : 2]]
        self.gloss = squash(re.split(r';?\s*"', text)[0]).rstrip("; ")
        self.examples = [squash(e) for e in re.findall(r'"([^"]+)"', text)]
        # A pointer has four fields: symbol, target offset, part of speech, source/target word numbers. `@` is a
        # hypernym, `@i` the class of an instance; both have the same part of speech as the synset.
        pointers = fields[5 + 2 * lemma_count : 5 + 2 * lemma_count + 4 * int(fields[4 + 2 * lemma_count])]
        self.hypernyms = [
            (part_of_speech, target)
            for symbol, target in zip(pointers[::4], pointers[1::4], strict=True)
            if symbol in ("@", "@i")
        ]


def read_synsets(root):
    """Every synset in file order, on which the split below depends."""
    return [
        Synset(part_of_speech, line)
        for part_of_speech in PARTS_OF_SPEECH
        for line in (root / f"usr/share/wordnet/data.{part_of_speech}").read_text("utf-8").splitlines()
        if not line.startswith("  ") and "| " in line
    ]


def split(synsets):
    """(held out, used in training): the split with which nv-embed-mini was trained.

    Synsets are shuffled with seed 1; the first 2,000 with a one-word first lemma and a gloss of more than 40 characters
    are held out. Other synsets with the same gloss as a held-out one were not used in training either.
    """
    shuffled = list(synsets)
    random.Random(1).shuffle(shuffled)
    held_out = [s for s in shuffled if len(s.gloss) > 40 and " " not in s.lemmas[0]][:HELD_OUT]
    keys, glosses = {s.key for s in held_out}, {s.gloss for s in held_out}
    return held_out, [s for s in shuffled if s.key not in keys and s.gloss not in glosses]


def retrieval(held_out, training):
    """The first lemma of each held-out synset with its gloss. Exits if a gloss is also a training text."""
    seen = {text for s in training for text in (s.gloss, *s.examples, *s.lemmas)}
    leaked = [s.gloss for s in held_out if s.gloss in seen]
    if leaked or len(held_out) != HELD_OUT:
        sys.exit(
            f"wordnet: {len(held_out)} held-out glosses, {len(leaked)} of them possibly used in training; expected "
            f"{HELD_OUT} and 0"
        )
    return [{"query": s.lemmas[0], "passage": s.gloss} for s in held_out]


def distances_up(hypernyms, start):
    """{ancestor: number of edges on the shortest path up}, including `start` itself."""
    found, edge = {start: 0}, [start]
    while edge:
        following = []
        for key in edge:
            for parent in hypernyms[key]:
                if parent not in found:
                    found[parent] = found[key] + 1
                    following.append(parent)
        edge = following
    return found


def wu_palmer(a, b, depth):
    """The largest 2·depth(c) / (up(a, c) + up(b, c) + 2·depth(c)) over common ancestors c; a root has depth 1.

    Wu and Palmer, "Verb semantics and lexical selection", ACL 1994.
    """
    common = a.keys() & b.keys()
    return max(2 * depth[c] / (a[c] + b[c] + 2 * depth[c]) for c in common)


def similarity(synsets, held_out):
    """Pairs of held-out noun glosses with their Wu-Palmer similarity, the same number from each tenth of [0, 1].

    Most pairs are unrelated, so that without bins nearly all would have similar scores.
    """
    hypernyms = {s.key: s.hypernyms for s in synsets}
    nouns = [s for s in held_out if s.key[0] == "noun"]
    up = [distances_up(hypernyms, s.key) for s in nouns]
    # Depth is the shortest path to the root; nouns have a single root, `entity`.
    root = ("noun", "00001740")
    depth = {key: distances_up(hypernyms, key)[root] + 1 for key in set().union(*up)}
    bins = [[] for _ in range(10)]
    order = [(i, j) for i in range(len(nouns)) for j in range(i)]
    random.Random(1).shuffle(order)
    for i, j in order:
        score = wu_palmer(up[i], up[j], depth)
        chosen = bins[min(int(score * 10), 9)]
        if len(chosen) < PAIRS_PER_BIN:
            chosen.append({"a": nouns[i].gloss, "b": nouns[j].gloss, "score": round(score, 4)})
    return bins


def licence(root):
    """WordNet's licence text, the numbered lines at the top of each data file."""
    text = (root / "usr/share/wordnet/data.noun").read_text("utf-8").splitlines()
    return "".join(re.sub(r"^  \d+ ", "", line).rstrip() + "\n" for line in text if line.startswith("  "))


def committed():
    """{file name: text} of every file in this folder that this script writes."""
    root = apt("wordnet-base=1:3.0-37", "wordnet-base_*3.0-37_all.deb", WORDNET_SHA256)
    synsets = read_synsets(root)
    held_out, training = split(synsets)
    path = wheel("zaragoza-construction-faq==1.2.1", "zaragoza_construction_faq-1.2.1-*.whl")
    check_digest(path, path.read_bytes(), FAQ_SHA256)
    faq = zipfile.ZipFile(path).read("zaragoza_construction_faq/data/faq-en.jsonl").decode()
    rows = [json.loads(line) for line in faq.splitlines()]
    bins = similarity(synsets, held_out)
    print("similarity pairs per bin:", [len(b) for b in bins], file=sys.stderr)
    return {
        "faq.jsonl": lines({"query": row["q"], "passage": row["a"]} for row in rows),
        "wordnet.jsonl": lines(retrieval(held_out, training)),
        "similarity.jsonl": lines(pair for chosen in bins for pair in chosen),
        "LICENSE-wordnet.txt": licence(root),
    }


def local():
    """{file name: text} of the sets that are not redistributed, from gensim's wheel."""
    archive = zipfile.ZipFile(wheel("gensim==4.4.0", "gensim-4.4.0-*.whl"))
    text = {}
    for name, digest in GENSIM_SHA256.items():
        data = archive.read(f"gensim/test/test_data/{name}")
        check_digest(name, data, digest)
        text[name] = data.decode("latin-1")
    made = {}
    for target, source in (("wordsim353.jsonl", "wordsim353.tsv"), ("simlex999.jsonl", "simlex999.txt")):
        rows = [line.split("\t") for line in text[source].splitlines() if not line.startswith("#")]
        made[target] = lines({"a": a, "b": b, "score": float(score)} for a, b, score in rows)
    documents = [line.strip() for line in text["lee.cor"].split("\n") if line.strip()]
    judged = [[float(x) for x in line.split()] for line in text["similarities0-1.txt"].splitlines()]
    # Only one triangle of the matrix is filled; max takes the value from either.
    made["lee.jsonl"] = lines(
        {"a": documents[i], "b": documents[j], "score": max(judged[i][j], judged[j][i])}
        for i in range(len(documents))
        for j in range(i + 1, len(documents))
    )
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="compare with the committed files instead of writing them")
    what.add_argument("--local", action="store_true", help="write the sets that are not redistributed to build/eval/")
    args = parser.parse_args()

    folder, made = (BUILD, local()) if args.local else (HERE, committed())
    differing = 0
    for name, content in made.items():
        path = folder / name
        same = path.is_file() and path.read_bytes() == content.encode()
        if not args.check:
            path.write_bytes(content.encode())
        elif not same:
            differing += 1
        print(f"{path}: {'unchanged' if same else 'differs' if args.check else 'written'}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
