"""A corpus of hard links is packed, and an epoch of it loaded."""

import multiprocessing
import time

from benchmarks import scale


def test_scale_loads_an_epoch_of_links(tmp_path):
    scale.link_corpus(tmp_path, {"train": 200, "dev": 8})
    files = list((tmp_path / "train" / "mfcc").iterdir())
    assert len(files) == 200
    assert len({path.stat().st_ino for path in files}) == scale.TEMPLATES
    receiver, sender = multiprocessing.Pipe(duplex=False)
    scale.start_and_load_epoch(tmp_path, time.time(), sender)
    cost = receiver.recv()
    assert min(cost.start, cost.shuffling, cost.utterances_per_second) > 0
    assert 0 < cost.memory_at_start <= cost.peak_memory
    assert cost.worker_memory > 0
    assert list((tmp_path / "runs" / "packed").glob("train-*/features.bin"))
