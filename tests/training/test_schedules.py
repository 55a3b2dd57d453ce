import pytest

from config import DEFAULTS, load_config
from training.schedules import (
    ALIGNED,
    Schedules,
    learning_rate,
    progress,
    teacher_forcing_rate,
    time_is_up,
    usual_seconds,
)


def test_the_seeds_teacher_forcing():
    """0.7, times 0.99 an epoch but not below 0.7, to epoch 40; then times 0.98 an epoch but not below 0.5."""
    settings = load_config(DEFAULTS.parent / "configs" / "seed.yaml").training.teacher_forcing.model_dump()
    rates = [teacher_forcing_rate(epoch, **settings) for epoch in range(1, 151)]
    assert rates[:40] == [0.7] * 40
    assert rates[40] == pytest.approx(0.7 * 0.98)
    assert rates[49] == pytest.approx(0.7 * 0.98**10)
    assert rates[-1] == 0.5


def test_stages_follow_one_another():
    stages = [{"from_epoch": 3, "factor": 0.5, "floor": 0.4}, {"from_epoch": 6, "factor": 0.9, "floor": 0.1}]
    rates = [teacher_forcing_rate(epoch, 1.0, stages) for epoch in range(1, 8)]
    assert rates == pytest.approx([1.0, 1.0, 0.5, 0.4, 0.4, 0.36, 0.324])
    assert teacher_forcing_rate(100, 1.0, []) == 1.0


def test_nothing_decays_before_the_model_is_aligned():
    stages = [{"from_epoch": 2, "factor": 0.9, "floor": 0.5}]

    def rate(epoch, *monotonicities):
        return teacher_forcing_rate(epoch, 1.0, stages, monotonicities)

    assert [rate(1), rate(2, 0.1), rate(3, 0.1, 0.2), rate(4, 0.1, 0.2, 0.3)] == [1.0] * 4
    assert rate(5, 0.1, 0.2, 0.3, 0.6) == 0.9
    assert rate(6, 0.1, 0.2, 0.3, 0.6, 0.3) == pytest.approx(0.81)  # once aligned, it goes on
    assert rate(2, 0.9) == 0.9


def test_warm_up_times_cosine():
    def rate(done):
        return learning_rate(done, done / 20, 1e-3, "cosine", warmup_epochs=2)

    rising = [rate(step / 10) for step in range(1, 21)]
    assert rising == sorted(rising)
    assert 0 < rising[0] < 1e-4
    assert rate(10) == pytest.approx(1e-3 * (0.01 + 0.99 / 2), rel=1e-6)
    assert rate(20) == pytest.approx(1e-5)
    falling = [rate(step / 10) for step in range(20, 201)]
    assert falling == sorted(falling, reverse=True)
    assert learning_rate(0.1, 0.0, 1e-3, "constant", warmup_epochs=0) == 1e-3


def test_plateau_halves_after_patience_epochs_without_a_new_best():
    def rate(distances):
        return learning_rate(50, 0.5, 1.0, "plateau", 0, distances, patience=2)

    assert rate([5, 4, 3]) == 1.0
    assert rate([5, 6]) == 1.0
    assert rate([5, 6, 5]) == 0.5
    assert rate([5, 6, 5, 4, 4]) == 0.5
    assert rate([5, 6, 5, 4, 4, 4]) == 0.25
    assert learning_rate(50, 0.5, 1.0, "constant", 0, [5, 6, 7, 8]) == 1.0


def test_progress_is_of_epochs_or_of_time_whichever_ends_first():
    assert progress(15.0, 60, [30.0] * 15, None) == 0.25
    assert progress(12.0, 60, [30.0] * 12, 12) == 0.5
    assert progress(12.5, 60, [30.0] * 12, 12) == pytest.approx(0.5 + 0.5 / 24)
    assert progress(12.0, 20, [30.0] * 12, 12) == 0.6  # fewer epochs than fit into the time
    assert progress(0.5, 60, [], 12) == pytest.approx(0.5 / 60)  # nothing is known yet
    assert progress(13.0, 60, [30.0] * 12 + [400.0], 12) == 1.0  # slower epochs later on do not stretch it
    rising = [progress(12 + step / 10, 60, [30.0] * 12, 12) for step in range(10)]
    assert rising == sorted(rising)


def test_no_epoch_is_begun_that_would_end_too_late():
    assert not time_is_up([], 12)
    assert not time_is_up([30.0] * 100, None)
    assert not time_is_up([30.0] * 23, 12)
    assert time_is_up([30.0] * 24, 12)
    assert time_is_up([30.0] * 12 + [400.0], 12)


# ----------------------------------------------------------------------------------------------------------- Schedules


def make(**changed) -> Schedules:
    settings = {
        "epochs": 10,
        "max_minutes": None,
        "learning_rate": 1e-3,
        "schedule": "cosine",
        "warmup_epochs": 1.0,
        "plateau_patience": 2,
        "ctc_epochs": 2,
        "guided_attention": 0.5,
        "expected_distance": 0.0,
        "teacher_forcing": {"start": 0.9, "stages": [{"from_epoch": 2, "factor": 0.5, "floor": 0.1}]},
    }
    return Schedules(**(settings | changed))


def history(*monotonicities, seconds=60.0, distances=None):
    distances = distances or range(len(monotonicities), 0, -1)
    return [
        {"epoch": epoch, "seconds": seconds, "dev_monotonicity": value, "dev_distance": distance}
        for epoch, (value, distance) in enumerate(zip(monotonicities, distances, strict=True), 1)
    ]


def test_they_take_their_settings_from_the_configuration_by_name():
    training = load_config().training.model_dump(include=set(Schedules.__annotations__))
    assert Schedules(**training).epochs == training["epochs"]


def test_a_run_is_finished_after_its_epochs_or_its_minutes():
    assert not make().finished(history(*[0.1] * 9))
    assert make().finished(history(*[0.1] * 10))
    limited = make(max_minutes=5)
    assert not limited.finished([])
    assert not limited.finished(history(*[0.1] * 4))
    assert limited.finished(history(*[0.1] * 5))
    assert limited.minutes_left(history(0.1, 0.1)) == 3
    assert make().minutes_left(history(0.1)) is None


def test_an_epoch_takes_the_median_of_the_last_three():
    assert [usual_seconds(seconds) for seconds in ([5.0], [5.0, 7.0], [1.0, 9.0, 5.0, 7.0])] == [5.0, 6.0, 7.0]


def test_minutes_are_over_within_an_epoch():
    limited = make(max_minutes=5)
    assert not limited.time_is_over(history(0.1, 0.1), 180.0)
    assert limited.time_is_over(history(0.1, 0.1), 180.5)
    assert not make().time_is_over(history(0.1, 0.1), 1e9)


@pytest.mark.parametrize(("ctc_epochs", "warned"), [(9, False), (10, True), (11, True)])
def test_a_speller_that_is_never_trained_is_a_warning(ctc_epochs, warned, caplog):
    make(ctc_epochs=ctc_epochs)
    assert ("the Speller is not trained" in caplog.text) == warned


def test_the_default_patience_is_an_epoch():
    assert learning_rate(5, 0.5, 1.0, "plateau", 0, [4, 3]) == 1.0
    assert learning_rate(5, 0.5, 1.0, "plateau", 0, [4, 3, 3]) == 0.5
    assert learning_rate(1, 0.5, 1.0, "constant", warmup_epochs=2) == 0.5


def test_epochs_left_are_known_once_the_speller_is_trained():
    assert [make().epochs_left(history(*[0.1] * done)) for done in range(4)] == [None, None, 8, 7]
    assert make(ctc_epochs=0).epochs_left([]) == 10


def test_an_epoch_of_each_kind():
    """The Listener alone, then with guided attention until a model was aligned; then the teacher's share decays."""
    schedules = make()
    assert schedules.of_epoch(1, []) == (0.9, 0.5, False, False)
    assert schedules.of_epoch(2, history(0.0)) == (0.9, 0.5, False, False)
    assert schedules.of_epoch(3, history(0.0, 0.1)) == (0.9, 0.5, True, False)
    assert schedules.of_epoch(4, history(0.0, 0.1, ALIGNED)) == (0.45, 0.0, True, False)
    assert schedules.of_epoch(5, history(0.0, 0.1, ALIGNED, 0.2)) == (pytest.approx(0.225), 0.0, True, False)
    assert make(guide_throughout=True).of_epoch(4, history(0.0, 0.1, ALIGNED)) == (0.45, 0.5, True, False)


def test_the_last_share_of_the_epochs_or_minutes_minimises_the_distance():
    def minimised(schedules, done, seconds=60.0):
        return schedules.of_epoch(done + 1, history(*[0.1] * done, seconds=seconds)).minimise_distance

    assert [minimised(make(expected_distance=0.3), done) for done in range(10)] == [False] * 7 + [True] * 3
    assert [minimised(make(expected_distance=0.25), done) for done in range(10)] == [False] * 8 + [True] * 2
    assert not any(minimised(make(), done) for done in range(11))
    limited = make(expected_distance=0.25, max_minutes=5)
    assert [minimised(limited, done) for done in range(5)] == [False] * 4 + [True]


def test_the_learning_rate_follows_epochs_time_and_distances():
    schedules = make()
    assert schedules.learning_rate_at(0.5, []) == learning_rate(0.5, 0.05, 1e-3, "cosine", 1.0)
    assert schedules.learning_rate_at(5.0, history(*[0.1] * 5)) == learning_rate(5.0, 0.5, 1e-3, "cosine", 1.0)
    limited = make(max_minutes=5)  # half of its time is over
    assert limited.learning_rate_at(2.5, history(0.1, 0.1)) == learning_rate(2.5, 0.5, 1e-3, "cosine", 1.0)
    plateau = make(schedule="plateau", ctc_epochs=0)
    assert plateau.learning_rate_at(4.5, history(*[0.1] * 4, distances=[5, 6, 7, 4])) == 5e-4
    assert plateau.learning_rate_at(4.5, history(*[0.1] * 4, distances=[5, 6, 4, 3])) == 1e-3
    warmed_up = make(schedule="plateau", ctc_epochs=2)  # distances of 5 and 4 are those of the CTC branch alone
    assert warmed_up.learning_rate_at(5.5, history(*[0.1] * 5, distances=[5, 4, 90, 70, 50])) == 1e-3
    assert warmed_up.learning_rate_at(5.5, history(*[0.1] * 5, distances=[5, 4, 50, 70, 90])) == 5e-4
