//! `least_busy`: to whoever has the least under way.

use crate::world::{Actor, World};
use crate::{actors, name, strategy};

#[test]
fn each_goes_to_one_of_those_with_the_least_to_do() {
    let mut all = actors(5);
    all[1] = Actor::new("p1/m").takes(0.3);
    let log = World::new(&strategy("least_busy"), all).run(60.0);
    let mut busy = [0; 5];
    for step in &log.steps {
        let least = busy.iter().min();
        let more = step.busy > busy[step.actor];
        assert!(
            !more || least == Some(&busy[step.actor]),
            "{busy:?}: {}",
            step.actor
        );
        busy[step.actor] = step.busy;
    }
}

#[test]
fn requests_under_way_stay_level_though_one_is_three_times_as_slow() {
    for count in [2, 3, 8] {
        let mut all = actors(count);
        all[0] = Actor::new("p0/m").takes(0.3);
        let rate = 35.0 * f64::from(u32::try_from(count).unwrap());
        let log = World::new(&strategy("least_busy"), all)
            .rate(rate)
            .run(60.0);
        let names: Vec<String> = (0..count).map(name).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let apart = log.apart(&names, 4, 5.0..60.0);
        assert!(apart < 0.1, "{count}: by chance, and not for long: {apart}");
        let levels = names.iter().map(|name| log.level(name, 5.0..60.0));
        let most = levels.clone().fold(0.0, f64::max);
        let least = levels.fold(f64::MAX, f64::min);
        assert!(most - least < 1.3, "{count}: from {least} to {most}");
        let times = log.rate("p1/m", 5.0..60.0) / log.rate("p0/m", 5.0..60.0);
        assert!(
            (2.6..3.1).contains(&times),
            "{count}: the slow one has a third: {times}"
        );
    }
}

#[test]
fn of_those_with_as_little_to_do_any_is_asked() {
    let all = ["a/m", "b/m", "c/m"].map(|name| Actor::new(name).takes(0.4));
    let log = World::new(&strategy("least_busy"), all.into())
        .rate(1.0)
        .run(300.0);
    for name in ["a/m", "b/m", "c/m"] {
        let share = log.share(name, 0.0..300.0);
        assert!((0.25..0.42).contains(&share), "{name}: {share}");
    }
}
