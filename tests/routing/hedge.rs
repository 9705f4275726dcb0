//! A second target beside one that takes too long: how much sooner answers begin, and how many more are asked for that.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::log::{Log, Try, Turn};
use crate::world::{Actor, World};
use crate::{CAREFUL, strategy};

/// The line of a model that is hedged.
pub fn hedge(after: &str, at_most: f64) -> String {
    format!("hedge = {{ after = {after:?}, at_most = {at_most} }}")
}

/// One that is late now and then, and one that never is.
pub fn two(hiccups: f64) -> Vec<Actor> {
    let usual = |name| Actor::new(name).takes(0.2);
    vec![usual("a/m").hiccups(hiccups), usual("b/m")]
}

/// The tries of each request, in the order in which they began.
fn requests(log: &Log) -> Vec<Vec<&Try>> {
    let mut all: BTreeMap<u64, Vec<&Try>> = BTreeMap::new();
    for it in &log.tries {
        all.entry(it.request).or_default().push(it);
    }
    all.into_values().collect()
}

/// Those that are hedged: both tries.
fn hedges(log: &Log) -> Vec<(&Try, &Try)> {
    let all = requests(log).into_iter();
    let hedged = all.filter_map(|tries| match tries[..] {
        [first, second, ..] if second.turn == Turn::Beside => Some((first, second)),
        _ => None,
    });
    hedged.collect()
}

/// The most that were hedged at any time over their share since any other.
fn at_once(log: &Log, at_most: f64) -> f64 {
    let (mut over, mut most) = (0.0_f64, 0.0_f64);
    for it in &log.tries {
        match it.turn {
            Turn::First => over = (over - at_most).max(0.0),
            Turn::Beside => over += 1.0,
            Turn::Next => {}
        }
        most = most.max(over);
    }
    most
}

#[test]
fn answers_begin_soon_where_the_first_is_late_now_and_then() {
    for seed in 1..4 {
        let run = |model: &str| World::new(model, two(0.04)).seed(seed).run(120.0);
        let (without, with) = (run(""), run(&hedge("p95", 0.1)));
        let seen = |log: &Log, part| log.waited(part, 1.0..115.0);
        assert!(
            seen(&without, 0.99) > 1.9,
            "{seed}: {}",
            seen(&without, 0.99)
        );
        for part in [0.99, 0.999] {
            let (without, with) = (seen(&without, part), seen(&with, part));
            assert!(
                with < 0.5 * without,
                "{seed}, {part}: {with}, and {without} without"
            );
        }
        let (without, with) = (seen(&without, 0.5), seen(&with, 0.5));
        assert!(
            (with - without).abs() < 0.01,
            "{seed}: most are as they were"
        );
    }
}

#[test]
fn their_share_is_never_more_than_written() {
    for (after, at_most, hiccups, want) in [
        ("p95", 0.1, 0.04, 0.03..=0.06),
        ("300ms", 0.1, 0.04, 0.03..=0.05),
        // As many as there may be, as more are late.
        ("p95", 0.02, 0.04, 0.019..=0.02),
        ("p50", 0.1, 0.04, 0.099..=0.1),
        ("100ms", 0.01, 1.0, 0.009_8..=0.01),
        ("100ms", 0.000_1, 1.0, 0.0..=0.000_1),
    ] {
        let log = World::new(&hedge(after, at_most), two(hiccups)).run(120.0);
        let (most, what) = (log.most_hedged(), format!("{after} of {at_most}"));
        assert!(most <= at_most, "{what}: {most} at some time");
        let all = log.hedged(0.0..120.0);
        assert!(want.contains(&all), "{what}: {all}");
    }
}

#[test]
fn a_fixed_time_holds_from_the_first_request_and_a_percentile_from_the_twentieth_answer() {
    let run = |after| World::new(&hedge(after, 1.0), two(1.0)).run(60.0);
    let log = run("300ms");
    let all = hedges(&log);
    for (first, second) in &all {
        let after = second.at - first.at;
        assert!((after - 0.3).abs() < 1e-5, "{after}");
    }
    let asked = log.turns(Turn::First, 0.0..59.0);
    // At this rate some of what is earned is not kept until it is needed.
    let hedged = log.turns(Turn::Beside, 0.0..60.0);
    assert!(hedged > 0.88 * asked, "{hedged} of {asked}");
    let log = run("p50");
    let all = hedges(&log);
    let (_, first) = all.iter().min_by(|a, b| a.1.at.total_cmp(&b.1.at)).unwrap();
    let answers = log.tries.iter().filter(|it| {
        let began = it.waited.map(|waited| it.at + waited);
        began.is_some_and(|began| began < first.at)
    });
    assert!(answers.count() >= 20, "at {}", first.at);
}

#[test]
fn a_target_that_is_slow_altogether_does_not_double_the_load() {
    for after in ["p95", "300ms"] {
        let slow = |t: f64| if (20.0..60.0).contains(&t) { 2.0 } else { 0.2 };
        let all = vec![
            Actor::new("a/m").takes_over_time(slow).hiccups(0.04),
            Actor::new("b/m").takes(0.2),
        ];
        let log = World::new(&hedge(after, 0.1), all).run(100.0);
        let most = log.most_hedged();
        assert!(most <= 0.1, "{after}: {most}");
        let most = log.hedged(20.0..60.0);
        assert!((0.04..0.105).contains(&most), "{after}: {most}");
        let busy = log.level("b/m", 20.0..60.0);
        assert!(busy < 0.11 * 100.0 * 0.5, "{after}: {busy}");
        let most = at_once(&log, 0.1);
        assert!(
            (8.0..=10.0 + 1e-9).contains(&most),
            "{after}: {most} of what was not needed before"
        );
        // What is usual becomes what is not late.
        let later = log.hedged(40.0..60.0);
        let want = if after == "p95" {
            0.03..0.07
        } else {
            0.09..0.105
        };
        assert!(want.contains(&later), "{after}: {later}");
    }
}

#[test]
fn whoever_is_outrun_counts_so_that_late_does_not_become_sooner_with_each() {
    // From a twentieth of a second to two, each as often.
    let wide = |t: f64| 0.05 * 40_f64.powf((t * 7_919.0).fract());
    for (after, late) in [("p80", 0.2), ("p90", 0.1), ("p95", 0.05)] {
        let all = vec![Actor::new("a/m").takes_over_time(wide), Actor::new("b/m")];
        let log = World::new(&hedge(after, 1.0), all).run(120.0);
        let hedged = log.hedged(30.0..120.0);
        assert!(
            (0.4 * late..1.2 * late).contains(&hedged),
            "{after}: {hedged}"
        );
    }
}

#[test]
fn the_second_is_another_and_one_of_both_answers() {
    for name in ["order", "sticky"].iter().chain(&CAREFUL) {
        let model = format!("{}\n{}", strategy(name), hedge("250ms", 0.2));
        let all = crate::actors(3).into_iter();
        let all = all.map(|actor| actor.takes(0.2).hiccups(0.05)).collect();
        let log = World::new(&model, all).run(60.0);
        let (mut hedged, mut won) = (0, 0);
        for (first, second) in hedges(&log) {
            if first.at > 55.0 {
                continue;
            }
            assert!(first.actor != second.actor, "{name}");
            assert!(
                first.waited.is_some() != second.waited.is_some(),
                "{name}: {first:?}, {second:?}"
            );
            hedged += 1;
            won += u32::from(second.waited.is_some());
        }
        assert!(hedged > 300 && won > 100, "{name}: {won} of {hedged}");
        assert!(log.lost.is_empty());
    }
}

#[test]
fn whoever_rests_is_never_the_second() {
    for others in [0, 1] {
        let mut all = two(0.1);
        all[1] = Actor::new("b/m").fails(10.0..40.0).rests_long();
        all.extend(crate::actors(others));
        let log = World::new(&hedge("300ms", 0.2), all)
            .probes(40.0, "b/m")
            .run(60.0);
        let b = log.number("b/m");
        let all = log.tries.iter();
        let seconds: Vec<&Try> = all.filter(|it| it.turn == Turn::Beside).collect();
        let at = |of_b: bool, when: Range<f64>| {
            let all = seconds.iter().filter(|it| (it.actor == b) == of_b);
            all.filter(|it| when.contains(&it.at)).count()
        };
        assert!(at(true, 0.0..10.0) > 50 && at(false, 0.0..10.0) == 0);
        let failed = at(true, 10.0..40.0);
        assert!((5..10).contains(&failed), "{failed}");
        assert_eq!(at(true, 12.0..40.0), 0, "it rests");
        let elsewhere = at(false, 12.0..40.0);
        assert!((elsewhere > 150) == (others > 0), "{elsewhere}");
        assert!(at(true, 41.0..60.0) > 100 && at(false, 41.0..60.0) == 0);
        assert!(log.lost.is_empty(), "a second that fails takes nothing");
        let tries = requests(&log);
        let mut begun = tries.iter().filter(|tries| tries[0].at < 57.0);
        assert!(begun.all(|tries| tries.iter().any(|it| it.waited.is_some())));
    }
}

#[test]
fn only_the_first_try_is_hedged_and_where_both_fail_the_third_is_asked() {
    let usual = |name| Actor::new(name).takes(0.2).never_rests();
    let (mut first, mut second) = (usual("a/m"), usual("b/m"));
    for n in (0..60).map(f64::from) {
        // At once, before another is asked; and when one has been, which fails, too.
        first = first.away(n..n + 0.02).fails(n + 0.5..n + 0.52);
        second = second.fails(n + 0.5..n + 0.54);
    }
    let all = vec![first, second, usual("c/m")];
    let log = World::new(&hedge("10ms", 1.0), all).run(60.0);
    let mut ways: BTreeMap<Vec<Turn>, u32> = BTreeMap::new();
    for tries in requests(&log) {
        let way = tries.iter().map(|it| it.turn).collect();
        *ways.entry(way).or_default() += 1;
    }
    let mut all = ways.keys();
    assert!(
        all.all(|way| way[0] == Turn::First && !way.iter().skip(2).any(|it| *it == Turn::Beside)),
        "{ways:?}"
    );
    let failed_at_once = ways[&vec![Turn::First, Turn::Next]];
    let both_failed = ways[&vec![Turn::First, Turn::Beside, Turn::Next]];
    assert!(failed_at_once > 50 && both_failed > 50, "{ways:?}");
    assert!(log.lost.is_empty());
}
