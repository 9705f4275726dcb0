//! `weight`: by chance, each as often as its weight says.

use crate::strategy;
use crate::world::{Actor, World};

/// Three targets with 60, 30 and 10 of 100.
fn three() -> [Actor; 3] {
    [("a/m", 6), ("b/m", 3), ("c/m", 1)]
        .map(|(name, weight)| Actor::new(name).says(&format!("weight = {weight}")))
}

#[track_caller]
fn is_about(share: f64, wanted: f64) {
    assert!(
        (share - wanted).abs() < 0.025,
        "{share} is not about {wanted}"
    );
}

#[test]
fn shares_follow_weights() {
    let log = World::new(&strategy("weight"), three().into()).run(100.0);
    for (name, wanted) in [("a/m", 0.6), ("b/m", 0.3), ("c/m", 0.1)] {
        is_about(log.share(name, 0.0..100.0), wanted);
    }
    let alike = ["a/m", "b/m", "c/m"].map(Actor::new);
    let log = World::new(&strategy("weight"), alike.into())
        .seed(2)
        .run(100.0);
    for name in ["a/m", "b/m", "c/m"] {
        is_about(log.share(name, 0.0..100.0), 1.0 / 3.0);
    }
}

#[test]
fn while_one_rests_the_others_share_by_their_weights() {
    let [a, b, c] = three();
    let log = World::new(&strategy("weight"), vec![a.fails(20.0..100.0), b, c]).run(100.0);
    assert!(
        log.asked("a/m", 25.0..100.0) < 10,
        "one tries it, now and then"
    );
    is_about(log.share("b/m", 25.0..100.0), 0.75);
    is_about(log.share("c/m", 25.0..100.0), 0.25);
    assert!(log.lost.is_empty(), "what failed there went on to another");
}

#[test]
fn who_weighs_nothing_is_asked_only_where_nobody_else_can_be() {
    let weighs = |weight: u32, name| Actor::new(name).says(&format!("weight = {weight}"));
    let all = vec![
        weighs(0, "drained/m"),
        weighs(1, "a/m").fails(30.0..40.0),
        weighs(1, "b/m").fails(20.0..40.0),
    ];
    let log = World::new(&strategy("weight"), all).run(80.0);
    assert_eq!(
        log.asked("drained/m", 0.0..30.0),
        0,
        "there is `a`, also while `b` rests"
    );
    assert!(log.share("drained/m", 30.5..40.0) > 0.99);
    let back = log.back("a/m", 40.0).min(log.back("b/m", 40.0));
    assert_eq!(
        log.asked("drained/m", back + 0.2..80.0),
        0,
        "one of them is back"
    );
    assert!(log.lost.is_empty());
}

#[test]
fn whoever_comes_back_gets_its_share_little_by_little() {
    let [a, b, c] = three();
    let all = vec![a.fails(20.0..40.0).rests_long(), b, c];
    let world = World::new(&strategy("weight"), all).probes(40.0, "a/m");
    let log = world.run(120.0);
    let back = log.back("a/m", 40.0);
    let share = |from, to| log.share("a/m", back + from..back + to);
    // A tenth of its weight, then half of it: 0.6 of 4.6, and 3 of 7.
    assert!(
        (0.05..0.25).contains(&share(0.1, 1.1)),
        "{}",
        share(0.1, 1.1)
    );
    assert!(
        (0.33..0.53).contains(&share(4.0, 6.0)),
        "{}",
        share(4.0, 6.0)
    );
    is_about(share(10.0, 50.0), 0.6);
}
