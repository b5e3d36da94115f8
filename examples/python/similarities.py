# %% [markdown]
# # Which passage answers which question?
#
# Run as a script, or cell by cell in an editor that knows `# %%`:
#
#     pip install 'build/wheel/NAME.whl[cpu]' matplotlib
#     python examples/python/similarities.py build/models/nv-embed-mini-fp32 similarities.png

# %%
import sys

from nvembed import Embedder

MODEL = sys.argv[1] if len(sys.argv) > 1 else "build/models/nv-embed-mini-fp32"
PICTURE = sys.argv[2] if len(sys.argv) > 2 else "similarities.png"

QUERIES = [
    "Are judo throws allowed in wrestling?",
    "How does one become a radiology technician in Michigan?",
    "Who wrote the Odyssey?",
]
PASSAGES = [
    "Judo throws are allowed in freestyle and folkstyle wrestling, if the slam rules are followed.",
    "A radiologic technologist in Michigan earns an associate degree and passes a registry's examination.",
    "The Odyssey is one of two ancient Greek epic poems attributed to Homer.",
    "Paris has been the capital of France for most of its history.",
]

# %% [markdown]
# Queries are read with an instruction, passages without. That is most of what there is to know of NV-Embed.

# %%
model = Embedder(MODEL)
queries = model.encode_query(QUERIES)
passages = model.encode_document(PASSAGES)
scores = model.similarity(queries, passages)

for query, row in zip(QUERIES, scores, strict=True):
    print(f"{row.max():.3f}  {query}  →  {PASSAGES[row.argmax()]}")

# %% [markdown]
# The picture: a row for each query, the brighter the nearer.

# %%
import matplotlib  # noqa: E402

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
image = axes.imshow(scores, vmin=0, vmax=1)
axes.set_xticks(range(len(PASSAGES)), [f"P{number}" for number in range(1, len(PASSAGES) + 1)])
axes.set_yticks(range(len(QUERIES)), QUERIES)
for row in range(len(QUERIES)):
    for column in range(len(PASSAGES)):
        axes.text(column, row, f"{scores[row, column]:.2f}", ha="center", va="center", color="white")
figure.colorbar(image, label="cosine")
figure.savefig(PICTURE)
print(PICTURE)
