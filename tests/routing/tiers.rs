//! `tier`: whom a target stands behind, with every strategy.

use crate::strategy;
use crate::world::{Actor, World};

const STRATEGIES: [&str; 6] = ["order", "weight", "latency", "least_busy", "cost", "sticky"];

/// Written from the last tier to the first: the number counts.
fn tiers() -> Vec<Actor> {
    let tier = |name, tier: u32| Actor::new(name).says(&format!("tier = {tier}"));
    vec![
        tier("last/m", 7),
        tier("low/m", 2),
        tier("low/n", 2),
        Actor::new("top/m").fails(20.0..50.0),
        Actor::new("top/n").fails(30.0..50.0),
    ]
}

#[test]
fn a_lower_tier_is_asked_only_while_all_above_it_rest() {
    for name in STRATEGIES {
        let mut model = strategy(name);
        if name == "sticky" {
            model += "\nsticky_by = [\"header:x-none\"]";
        }
        let log = World::new(&model, tiers()).run(110.0);
        let lower = |when: std::ops::Range<f64>| {
            log.asked("low/m", when.clone()) + log.asked("low/n", when)
        };
        assert_eq!(lower(0.0..30.0), 0, "{name}: one of two still works");
        let share = log.share("low/m", 30.5..50.0) + log.share("low/n", 30.5..50.0);
        assert!(share > 0.999, "{name}: {share}");
        let back = log.back("top/m", 50.0).min(log.back("top/n", 50.0));
        assert_eq!(lower(back + 0.2..110.0), 0, "{name}: it gives back");
        assert_eq!(log.asked("last/m", 0.0..110.0), 0, "{name}");
        assert!(log.lost.is_empty(), "{name}");
        // In each tier it goes by the strategy.
        let spread = log.share("low/m", 30.5..50.0);
        match name {
            "order" | "cost" => assert!(spread > 0.999, "{name}: {spread}"),
            _ => assert!((0.44..0.56).contains(&spread), "{name}: {spread}"),
        }
    }
}

#[test]
fn what_fails_at_all_of_a_tier_goes_on_to_the_next() {
    for name in STRATEGIES {
        let fails = |actor: Actor| actor.fails(0.0..1.0);
        let mut all = tiers();
        all.truncate(1);
        all.extend(["a/m", "b/m", "c/m"].map(Actor::new).map(fails));
        let log = World::new(&strategy(name), all).rate(40.0).run(1.0);
        assert!(log.asked("last/m", 0.0..1.0) > 20, "{name}");
        assert!(log.lost.is_empty(), "{name}: each was answered in the end");
        // Five failures in a row of each, and of those that were under way.
        let tried = ["a/m", "b/m", "c/m"].map(|name| log.asked(name, 0.0..1.0));
        assert!(
            tried.iter().all(|tries| (5..=8).contains(tries)),
            "{name}: {tried:?}"
        );
    }
}
