//! Models with many targets: some are looked at, and all get their part.

use crate::log::Log;
use crate::world::{Actor, Words, World};
use crate::{CAREFUL, actors, name, strategy};

fn rates(log: &Log, from: f64) -> Vec<f64> {
    log.names
        .iter()
        .map(|name| log.rate(name, from..log.end))
        .collect()
}

#[test]
fn each_of_forty_gets_its_part() {
    for careful in CAREFUL {
        let log = World::new(&strategy(careful), actors(40))
            .rate(800.0)
            .run(40.0);
        for rate in rates(&log, 5.0) {
            assert!((16.0..24.0).contains(&rate), "{careful}: {rate}");
        }
    }
}

#[test]
fn shares_of_forty_follow_weights() {
    let weighs = |n: usize| Actor::new(&name(n)).says(&format!("weight = {}", n % 4));
    let log = World::new(&strategy("weight"), (0..40).map(weighs).collect());
    let log = log.rate(600.0).run(60.0);
    for (n, rate) in rates(&log, 0.0).into_iter().enumerate() {
        // 60 of weight in all: 10 a second for each.
        let wanted = 10.0 * f64::from(u32::try_from(n % 4).unwrap());
        assert!((rate - wanted).abs() <= 0.2 * wanted, "{n}: {rate}");
    }
}

#[test]
fn of_forty_that_are_busy_the_slow_ones_get_less() {
    let all = |n: usize| Actor::new(&name(n)).takes(if n < 4 { 0.3 } else { 0.1 });
    for (careful, most) in [("latency", 5.0), ("least_busy", 10.0)] {
        let log = World::new(&strategy(careful), (0..40).map(all).collect());
        let log = log.rate(800.0).run(30.0);
        for (n, rate) in rates(&log, 5.0).into_iter().enumerate() {
            assert!((n < 4) == (rate < most), "{careful}, {n}: {rate}");
        }
        let most = log.names.iter().map(|name| log.peak(name, 5.0..30.0)).max();
        assert!(most <= Some(12), "{careful}: {most:?}");
    }
}

#[test]
fn where_most_of_forty_rest_the_others_share_alike() {
    let works = [10, 20, 30];
    let all = |n: usize| match works.contains(&n) {
        true => Actor::new(&name(n)),
        false => Actor::new(&name(n)).fails(0.0..1e6),
    };
    for strategy in CAREFUL
        .map(strategy)
        .into_iter()
        .chain([strategy("sticky")])
    {
        let log = World::new(&strategy, (0..40).map(all).collect());
        let log = log.rate(60.0).words(|_, dice| {
            let user = dice.below(600);
            Words::of(user, &format!(r#"{{"model":"m","user":"u{user}"}}"#))
        });
        let log = log.run(100.0);
        for n in works {
            let share = log.share(&name(n), 40.0..100.0);
            assert!((0.25..0.42).contains(&share), "{strategy}, {n}: {share}");
        }
    }
}

#[test]
fn who_weighs_nothing_is_not_asked_where_most_of_forty_rest() {
    let all = |n: usize| match n {
        0 => Actor::new(&name(n)).says("weight = 0"),
        10 | 20 => Actor::new(&name(n)).says(&format!("weight = {}", n / 10)),
        _ => Actor::new(&name(n)).fails(0.0..1e6),
    };
    let log = World::new(&strategy("weight"), (0..40).map(all).collect()).run(80.0);
    assert_eq!(log.asked("p0/m", 2.0..80.0), 0);
    let share = log.share("p20/m", 40.0..80.0);
    assert!((0.62..0.71).contains(&share), "{share}");
}
