"""Ray Data: embed Parquet with an actor per GPU, or per share of the processors. A run that ended early goes on.

    python ray_data.py MODEL INPUT OUTPUT --actors 8 --gpus 1 --checkpoint /shared/checkpoint

INPUT has the columns `id` (every value once) and `text`; OUTPUT gets `id` and `embedding` (a list of f16). An actor
that dies is started again, and its rows are embedded again.
"""

import argparse

import ray
from nvembed.ray import Embed
from ray.data.checkpoint import CheckpointConfig


def embed(model, source, out, *, actors=1, gpus=0, cpus=1, batch=1024, checkpoint=None, actor=Embed, **options):
    """Reads, embeds and writes. An actor takes four batches at a time, which is what its death costs; 1,024 rows of
    4,096 f16 are 8 MB.
    """
    context = ray.data.DataContext.get_current()
    context.checkpoint_config = CheckpointConfig(id_column="id", checkpoint_path=checkpoint) if checkpoint else None
    rows = ray.data.read_parquet(source).select_columns(["id", "text"])
    rows = rows.repartition(target_num_rows_per_block=4 * batch).map_batches(
        actor,
        fn_constructor_args=(model,),
        fn_constructor_kwargs=options,
        batch_format="pyarrow",
        batch_size=batch,
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_gpus=gpus or None,
        num_cpus=None if gpus else cpus,
    )
    rows.write_parquet(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("source", metavar="INPUT")
    parser.add_argument("out", metavar="OUTPUT")
    parser.add_argument("--actors", type=int, default=1)
    parser.add_argument("--gpus", type=float, default=0, help="of an actor")
    parser.add_argument("--cpus", type=int, default=1, help="of an actor without a GPU")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--checkpoint", help="a folder that all machines see")
    arguments = vars(parser.parse_args())
    provider = {"provider": "cuda"} if arguments["gpus"] else {}
    embed(**arguments, **provider)
