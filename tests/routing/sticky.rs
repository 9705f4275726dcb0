//! `sticky`: the same target for the same conversation.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::dice::Dice;
use crate::log::Log;
use crate::world::{Actor, Words, World};
use crate::{actors, name, strategy};

const COUNT: usize = 100;
const STICKY: &str = "strategy = \"sticky\"\nsticky_by = [\"header:X-Session\", \"prompt_cache_key\", \"user\", \"messages\"]";

/// By what the requests of a conversation are known.
const WAYS: [&str; 4] = ["header", "prompt_cache_key", "user", "messages"];

/// One of many conversations says something more, known by one of these ways.
fn talk(way: &'static str) -> impl FnMut(f64, &mut Dice) -> Words {
    let mut turns = vec![0; COUNT];
    move |_, dice| {
        let group = dice.below(COUNT);
        turns[group] += 1;
        said(way, group, turns[group])
    }
}

/// What a conversation says the so manieth time.
fn said(way: &str, group: usize, turn: usize) -> Words {
    let mut headers = HeaderMap::new();
    let mut member = String::new();
    let mut first = format!("a word that nobody said before: {group}, {turn}");
    match way {
        "header" => {
            let value = HeaderValue::from_str(&format!("session-{group}")).unwrap();
            headers.insert(HeaderName::from_static("x-session"), value);
        }
        "messages" => first = format!("tell me of {group}"),
        _ => member = format!(r#","{way}":"somebody-{group}""#),
    }
    let mut messages = r#"{"role":"system","content":"be kind"}"#.to_owned();
    let _ = write!(messages, r#",{{"role":"user","content":"{first}"}}"#);
    for turn in 1..turn {
        let _ = write!(messages, r#",{{"role":"assistant","content":"{turn}"}}"#);
        let _ = write!(messages, r#",{{"role":"user","content":"and {turn}"}}"#);
    }
    let body = format!(r#"{{"model":"m","messages":[{messages}]{member}}}"#);
    Words {
        headers,
        ..Words::of(group, &body)
    }
}

/// Of each conversation, where most of its requests of a time went, and which part of them.
fn homes(log: &Log, when: Range<f64>) -> BTreeMap<usize, (usize, f64)> {
    let mut counts: BTreeMap<usize, BTreeMap<usize, u32>> = BTreeMap::new();
    for it in log.tries.iter().filter(|it| when.contains(&it.at)) {
        *counts
            .entry(it.group)
            .or_default()
            .entry(it.actor)
            .or_default() += 1;
    }
    let home = |counts: BTreeMap<usize, u32>| {
        let (actor, most) = counts.iter().max_by_key(|(_, count)| **count).unwrap();
        (
            *actor,
            f64::from(*most) / f64::from(counts.values().sum::<u32>()),
        )
    };
    counts
        .into_iter()
        .map(|(group, counts)| (group, home(counts)))
        .collect()
}

/// How many conversations have another home than before, and how many of these went to a target.
fn moved(log: &Log, before: Range<f64>, after: Range<f64>, to: &str) -> (usize, usize) {
    let (before, after) = (homes(log, before), homes(log, after));
    let moved = before.iter().filter_map(|(group, (home, _))| {
        let (now, _) = after[group];
        (now != *home).then_some(now)
    });
    let (to, moved) = (log.number(to), moved.collect::<Vec<_>>());
    (
        moved.len(),
        moved.iter().filter(|actor| **actor == to).count(),
    )
}

#[test]
fn a_conversation_stays_where_it_is_through_reloads_and_in_whatever_order_targets_are_written() {
    for way in WAYS {
        let all = ["p0/m", "p1/m", "p2/m", "p3/m"];
        let turned = ["p2/m", "p0/m", "p3/m", "p1/m"];
        let world = World::new(STICKY, actors(4)).words(talk(way)).rate(40.0);
        let world = world
            .changes(20.0, STICKY, &all)
            .changes(40.0, STICKY, &turned);
        let log = world.run(100.0);
        let homes = homes(&log, 0.0..100.0);
        assert_eq!(homes.len(), COUNT);
        for (group, (_, part)) in homes {
            assert!(part >= 0.95, "{way}: of {group} {part}");
        }
        for name in all {
            let share = log.share(name, 0.0..100.0);
            assert!((0.13..0.37).contains(&share), "{way}: {name} has {share}");
        }
    }
}

#[test]
fn only_as_many_move_as_another_target_takes_or_one_that_leaves_had() {
    let (three, four) = (["p0/m", "p1/m", "p2/m"], ["p3/m", "p0/m", "p1/m", "p2/m"]);
    let world = World::new(STICKY, actors(4)).words(talk("user")).rate(60.0);
    let world = world.changes(0.0, STICKY, &three);
    let world = world
        .changes(50.0, STICKY, &four)
        .changes(100.0, STICKY, &three);
    let log = world.run(150.0);
    let (all, to_it) = moved(&log, 1.0..50.0, 50.0..100.0, "p3/m");
    assert_eq!(all, to_it, "nobody moves but to the new one");
    assert!(
        (COUNT / 6..COUNT / 3).contains(&all),
        "about a fourth: {all}"
    );
    // The same go back to where they came from.
    let (back, _) = moved(&log, 50.0..100.0, 100.0..150.0, "p0/m");
    assert_eq!(back, all);
    assert_eq!(moved(&log, 1.0..50.0, 100.0..150.0, "p0/m").0, 0);
}

#[test]
fn the_first_thing_counts_by_which_a_request_belongs_to_others() {
    let world = World::new(STICKY, actors(16));
    let body = |members: &str| Words::of(0, &format!(r#"{{"model":"m",{members}}}"#));
    let order = |words: &Words, seed| world.order(words, seed);
    let one =
        body(r#""user":"ann","prompt_cache_key":"k","messages":[{"role":"user","content":"1"}]"#);
    let other =
        body(r#""prompt_cache_key":"k","user":"bob","messages":[{"role":"user","content":"2"}]"#);
    let third = body(r#""user":"ann","messages":[{"role":"user","content":"1"}]"#);
    assert_eq!(order(&one, 1), order(&other, 2));
    assert_ne!(order(&one, 1), order(&third, 1));
    let mut with = one.clone();
    with.headers
        .insert("x-session", HeaderValue::from_static("s"));
    assert_ne!(order(&one, 1), order(&with, 1));
    assert_eq!(
        order(&with, 1),
        order(
            &Words {
                headers: with.headers.clone(),
                ..third
            },
            2
        )
    );
}

#[test]
fn what_belongs_to_nothing_is_spread() {
    for body in [
        r#"{"model":"m"}"#,
        r#"{"model":"m","user":"","prompt_cache_key":"","messages":[]}"#,
        r#"{"model":"m","user":null,"messages":7}"#,
    ] {
        let words = Words::of(0, body);
        let log = World::new(&strategy("sticky"), actors(4)).words(move |_, _| words.clone());
        let log = log.run(60.0);
        for n in 0..4 {
            let share = log.share(&name(n), 0.0..60.0);
            assert!((0.22..0.28).contains(&share), "{body}: {share}");
        }
    }
}

#[test]
fn a_conversation_whose_target_is_loaded_spills_to_the_same_other() {
    // One says as much as all others together: for it alone sixteen would be under way.
    let words = |_, dice: &mut Dice| match dice.below(2) {
        0 => said("user", 0, 1),
        _ => said("user", 1 + dice.below(COUNT - 1), 1),
    };
    let log = World::new(STICKY, actors(4))
        .words(words)
        .rate(160.0)
        .run(100.0);
    let mut counts = [0.0; 4];
    for it in log.tries.iter().filter(|it| it.group == 0) {
        counts[it.actor] += 1.0;
    }
    let order: Vec<usize> = {
        let world = World::new(STICKY, actors(4));
        let order = world.order(&said("user", 0, 1), 1);
        order.iter().map(|name| log.number(name)).collect()
    };
    let all: f64 = counts.iter().sum();
    let parts: Vec<f64> = order.iter().map(|actor| counts[*actor] / all).collect();
    assert!(parts[0] > 0.6, "most stay: {parts:?}");
    assert!(parts[1] > 0.05, "and some spill: {parts:?}");
    assert!(parts[2] + parts[3] < 0.02, "to the same: {parts:?}");
    let levels = (0..4).map(|n| log.level(&name(n), 5.0..100.0));
    let most = levels.fold(0.0, f64::max);
    assert!(most < 20.0, "{most}");
}

#[test]
fn while_its_target_rests_a_conversation_is_at_the_same_other_and_then_goes_back() {
    let mut all = actors(4);
    all[0] = Actor::new("p0/m").fails(40.0..80.0);
    let log = World::new(STICKY, all)
        .words(talk("messages"))
        .rate(40.0)
        .run(160.0);
    let (before, during) = (homes(&log, 0.0..40.0), homes(&log, 45.0..80.0));
    let back = log.back("p0/m", 80.0);
    let after = homes(&log, back + 15.0..160.0);
    for (group, (home, _)) in before {
        let (other, part) = during[&group];
        assert!(part > 0.75, "{group}: {part}");
        assert_eq!(home == other, home != 0, "{group}");
        assert_eq!(after[&group].0, home, "{group}");
    }
}

#[test]
fn conversations_go_back_little_by_little_and_each_of_them_once() {
    let mut all = actors(4);
    all[0] = Actor::new("p0/m").fails(20.0..40.0).rests_long();
    let words = |_, dice: &mut Dice| said("user", dice.below(500), 1);
    let log = World::new(STICKY, all)
        .words(words)
        .rate(60.0)
        .probes(40.0, "p0/m")
        .run(100.0);
    let (back, usual) = (log.back("p0/m", 40.0), log.rate("p0/m", 0.0..20.0));
    let first = log.rate("p0/m", back..back + 1.0);
    assert!(
        first < 0.4 * usual,
        "{first} in the first second, and {usual} before"
    );
    let half = log.rate("p0/m", back + 4.0..back + 6.0) / usual;
    assert!((0.25..0.75).contains(&half), "{half} after five seconds");
    let whole = log.rate("p0/m", back + 12.0..100.0) / usual;
    assert!((0.85..1.15).contains(&whole), "{whole} in the end");
    // Who is back stays, but for those for whom there is no room at the moment.
    let (mut left, mut is_back) = (0, [false; 500]);
    for it in log.tries.iter().filter(|it| it.at > back) {
        left += usize::from(is_back[it.group] && it.actor != 0);
        is_back[it.group] = it.actor == 0;
    }
    assert!(left < 12, "{left} times");
}
