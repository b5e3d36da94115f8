"""Write trec.json: rankings, judgements, and what trec_eval makes of them.

    pip install pytrec-eval-terrier==0.5.11
    python crates/nvembed-eval/tests/trec.py

Scores are 32-bit floats with many ties. Judgements are graded, may be negative, and may name passages that were not
found.
"""

import json
import random
import struct
from pathlib import Path

import pytrec_eval

MEASURES = ("ndcg_cut_10", "recall_10", "recall_100", "recip_rank", "map")


def f32(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def evaluated(qrels, run):
    """The measures of one query; `recip_rank` of its ten best passages only."""
    measure = pytrec_eval.RelevanceEvaluator({"q": qrels}, set(MEASURES))
    figures = measure.evaluate({"q": run})["q"]
    best = sorted(run, key=lambda document: (run[document], document), reverse=True)[:10]
    figures["recip_rank"] = measure.evaluate({"q": {document: run[document] for document in best}})["q"]["recip_rank"]
    # As text: not every JSON parser reads numbers to the last bit.
    return [repr(figures[name]) for name in MEASURES]


def main():
    draw, cases = random.Random(1), []
    for case in range(100):
        documents = [f"d{number}" for number in range(draw.choice((1, 5, 30, 120)))]
        steps = draw.choice((3, 50, 10**6))
        run = {document: f32(draw.randrange(steps) / steps) for document in documents}
        judged = draw.sample([f"d{number}" for number in range(150)], draw.randrange(1, 60))
        qrels = {document: draw.choice((-1, 0, 1, 1, 2, 3)) for document in judged}
        if case % 20 == 0:
            qrels = dict.fromkeys(judged, 0)
        cases.append({"qrels": qrels, "run": list(run.items()), "measures": evaluated(qrels, run)})
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    Path(__file__).with_name("trec.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
