"""A bad command line is a single message that names the flag."""

import pytest

from benchmarks import data, decode, scale, train


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        (train, "--shape 1,2", "--shape: found '1,2'"),
        (train, "--only fast", "--only: found 'fast'"),
        (train, "--rounds 0", "--rounds: found 0"),
        (train, "--json /no/such/folder/x.json", "--json"),
        (train, "--config no.yaml", "no.yaml"),
        (train, "--plot-frames 1,x --plot growth.png", "--plot-frames: found '1,x'"),
        (decode, "--seconds 0", "--seconds: found 0"),
        (decode, "--beam 0", "--beam: found 0"),
        (decode, "--checkpoint x.pt", "all three or none"),
        (data, "--shape 4,10,3,5 --utterances 7", "--utterances: found 7"),
        (scale, "--utterances 1,000.5", "--utterances: found '1,000.5'"),
    ],
)
def test_bad_arguments_are_one_message(module, arguments, message, run_benchmark, capsys):
    with pytest.raises(SystemExit) as exit_:
        run_benchmark(module, *arguments.split())
    assert exit_.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]
