//! `latency`: whoever answers soonest gets the most, and nobody gets everything.

use crate::world::{Actor, World};
use crate::{actors, name, strategy};

/// The usual, but ten times as slow for a while.
fn slow(t: f64) -> f64 {
    if (20.0..60.0).contains(&t) { 1.0 } else { 0.1 }
}

#[test]
fn load_follows_latency_when_one_becomes_slow_and_comes_back() {
    for count in [2, 3, 40] {
        let mut all = actors(count);
        all[0] = Actor::new("p0/m").takes_over_time(slow);
        #[expect(clippy::cast_precision_loss, reason = "forty")]
        let rate = 35.0 * count as f64;
        let log = World::new(&strategy("latency"), all).rate(rate).run(100.0);
        let rate = |when| log.rate("p0/m", when);
        assert!(
            (30.0..40.0).contains(&rate(5.0..20.0)),
            "{count}: {}",
            rate(5.0..20.0)
        );
        // Those that came before anybody knew wait; hardly anybody follows them.
        assert!(rate(20.0..21.0) < 20.0, "{count}: {}", rate(20.0..21.0));
        assert!(rate(22.0..60.0) < 3.5, "{count}: {}", rate(22.0..60.0));
        assert!(log.waited(0.95, 22.0..60.0) < 0.2, "{count}");
        assert!(
            (30.0..40.0).contains(&rate(75.0..100.0)),
            "{count}: {}",
            rate(75.0..100.0)
        );
        // Nor do all of them come back at once.
        let (most, usual) = (log.peak("p0/m", 60.0..90.0), log.level("p0/m", 5.0..20.0));
        assert!(
            f64::from(most) < 2.0 * usual + 2.0,
            "{count}: {most}, and {usual} before"
        );
    }
}

#[test]
fn who_has_never_answered_is_explored_by_one_request_and_not_by_a_crowd() {
    for count in [2, 3, 40] {
        // It is slow, so that many come before its first answer.
        let last = name(count - 1);
        let mut all = actors(count - 1);
        all.push(Actor::new(&last).takes(1.0));
        let names: Vec<String> = (0..count).map(name).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let latency = strategy("latency");
        let world = World::new(&latency, all).rate(200.0);
        let world = world.changes(0.0, &latency, &names[..count - 1]);
        let log = world.changes(20.0, &latency, &names).run(60.0);
        let first = log.back(&last, 20.0);
        assert!(first < 21.0, "{count}: it is asked at all: {first}");
        assert_eq!(log.peak(&last, 20.0..first + 0.6), 1, "{count}: but by one");
        assert!(
            log.rate(&last, 30.0..60.0) < 6.0,
            "{count}: and then as its latency says"
        );
    }
}

#[test]
fn at_the_start_nobody_is_known_and_nobody_is_flooded() {
    // As many as a second brings come at once, and no answer is there yet.
    for count in [2, 3, 40] {
        let all = actors(count).into_iter().map(|it| it.takes(1.0)).collect();
        let log = World::new(&strategy("latency"), all).rate(120.0).run(0.5);
        let peaks: Vec<u32> = (0..count).map(|n| log.peak(&name(n), 0.0..0.5)).collect();
        let (most, sum) = (peaks.iter().max().unwrap(), peaks.iter().sum::<u32>());
        let fair = sum.div_ceil(u32::try_from(count).unwrap());
        assert!(*most <= fair + 2, "{count}: {peaks:?}");
    }
}

#[test]
fn a_slow_answer_now_and_then_does_not_drive_everybody_away() {
    let all = ["a/m", "b/m"].map(|name| Actor::new(name).hiccups(0.01));
    let log = World::new(&strategy("latency"), all.into()).run(200.0);
    for n in 0..10 {
        let from = 20.0 * f64::from(n);
        let share = log.share("a/m", from..from + 20.0);
        assert!((0.3..0.7).contains(&share), "{from}: {share}");
    }
    let share = log.share("a/m", 0.0..200.0);
    assert!((0.43..0.57).contains(&share), "{share}");
}

#[test]
fn of_whom_nothing_was_heard_for_long_one_finds_out_how_it_is() {
    // So little to do that the faster one takes it all.
    let slow = |t| if t < 50.0 { 2.0 } else { 0.1 };
    let all = vec![
        Actor::new("a/m").takes_over_time(slow),
        Actor::new("b/m").takes(0.2),
    ];
    let log = World::new(&strategy("latency"), all).rate(0.5).run(400.0);
    assert!(log.asked("a/m", 0.0..50.0) <= 2, "once in half a minute");
    assert!(
        log.share("a/m", 95.0..400.0) > 0.8,
        "it is the faster one now"
    );
}

#[test]
fn who_has_room_for_few_gets_few() {
    // It works at four, and so at 16 a second; the others at whatever comes.
    let all = || {
        vec![
            Actor::new("a/m").slots(4),
            Actor::new("b/m"),
            Actor::new("c/m"),
        ]
    };
    for (name, most) in [("latency", 18.0), ("least_busy", 17.0)] {
        let log = World::new(&strategy(name), all()).rate(90.0).run(60.0);
        let rate = log.rate("a/m", 5.0..60.0);
        assert!((9.0..most).contains(&rate), "{name}: {rate}");
        assert!(
            log.waited(0.5, 5.0..60.0) < 0.12,
            "{name}: hardly anybody waits for it"
        );
    }
}

#[test]
fn that_it_was_slow_before_it_rested_is_not_held_against_it() {
    let slow = |t| if t < 25.0 { 1.0 } else { 0.1 };
    let ill = Actor::new("a/m").takes_over_time(slow).fails(20.0..25.0);
    let all = vec![ill.rests_long(), Actor::new("b/m"), Actor::new("c/m")];
    let world = World::new(&strategy("latency"), all).probes(25.0, "a/m");
    let log = world.run(40.0);
    let back = log.back("a/m", 25.0);
    let rate = log.rate("a/m", back + 4.0..back + 8.0);
    assert!((14.0..30.0).contains(&rate), "{rate}");
}
