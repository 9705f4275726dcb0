//! What becomes of a target that has rested: its share little by little, and no herd.

use crate::world::{Actor, World};
use crate::{CAREFUL, strategy};

#[test]
fn whoever_comes_back_is_not_run_over() {
    for careful in CAREFUL {
        for others in [1, 2, 39] {
            let mut all = vec![Actor::new("a/m").fails(20.0..40.0).rests_long()];
            all.extend(crate::actors(others));
            let rate = 40.0 * f64::from(u32::try_from(others + 1).unwrap());
            let world = World::new(&strategy(careful), all).rate(rate);
            let log = world.probes(40.0, "a/m").run(75.0);
            let back = log.back("a/m", 40.0);
            let what = format!("{careful}, {others} others");
            let first = log.rate("a/m", back..back + 1.0);
            assert!(first < 0.5 * 40.0, "{what}: {first} in the first second");
            let usual = log.level("a/m", 5.0..20.0);
            let most = log.peak("a/m", back..back + 4.0);
            assert!(
                f64::from(most) < 1.2 * usual,
                "{what}: {most} soon, and {usual} before"
            );
            let most = log.peak("a/m", back..back + 12.0);
            assert!(
                f64::from(most) < 2.0 * usual,
                "{what}: {most}, and {usual} before"
            );
            let half = log.rate("a/m", back + 4.0..back + 6.0);
            assert!(
                (8.0..32.0).contains(&half),
                "{what}: {half} after five seconds"
            );
            let whole = log.rate("a/m", back + 12.0..75.0);
            assert!((34.0..46.0).contains(&whole), "{what}: {whole} in the end");
            assert!(log.lost.is_empty());
        }
    }
}

#[test]
fn nor_are_the_other_models_of_its_provider_when_that_is_reached_again() {
    for careful in CAREFUL {
        let away = ["p/one", "p/two"].map(|name| Actor::new(name).away(20.0..40.0).rests_long());
        let mut all = Vec::from(away);
        all.extend(["c/m", "d/m"].map(Actor::new));
        let world = World::new(&strategy(careful), all).rate(160.0);
        let log = world.probes(40.0, "p/one").run(75.0);
        let back = log.back("p/one", 40.0);
        for name in ["p/one", "p/two"] {
            let first = log.rate(name, back..back + 1.0);
            assert!(
                first < 0.5 * 40.0,
                "{careful}, {name}: {first} in the first second"
            );
            let whole = log.rate(name, back + 15.0..75.0);
            assert!(
                (33.0..47.0).contains(&whole),
                "{careful}, {name}: {whole} in the end"
            );
        }
    }
}

#[test]
fn where_one_has_everything_it_has_everything_again_at_once() {
    for name in ["order", "cost"] {
        let all = vec![Actor::new("a/m").fails(20.0..40.0), Actor::new("b/m")];
        let log = World::new(&strategy(name), all).run(75.0);
        let back = log.back("a/m", 40.0) + 0.2;
        assert!(log.share("a/m", back..75.0) > 0.999, "{name}");
    }
}
