//! The pictures of `docs/routing.md`. With `UPDATE=1` in the environment they are drawn anew; otherwise they must be what they
//! would be.

use std::fs;
use std::path::Path;

use crate::hedge;
use crate::log::Log;
use crate::picture::{
    AMBER, BLUE, Body, Colour, GREEN, GREY, Line, Panel, Picture, Shape, VIOLET, over, rates,
};
use crate::strategy;
use crate::world::{Actor, Words, World};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/routing");
/// Whoever draws a picture.
type Draw = fn() -> Picture;

const PER_SECOND: &str = "requests per second, by target";
const THREE: [(Colour, &str); 3] = [(BLUE, "blue/m"), (AMBER, "amber/m"), (GREEN, "green/m")];

fn panel(title: &'static str, (most, step): (f64, f64), body: Body) -> Panel {
    Panel {
        title,
        height: 190.0,
        most,
        step,
        body,
        notes: Vec::new(),
    }
}

fn picture(title: &'static str, legend: &[(Colour, &'static str)], panels: Vec<Panel>) -> Picture {
    Picture {
        title,
        legend: legend.to_vec(),
        seconds: 60.0,
        tick: 10.0,
        from: 0.0,
        panels,
    }
}

fn actor(name: &str) -> Actor {
    Actor::new(name).rests_long()
}

fn order() -> Picture {
    let all = vec![
        actor("blue/m").fails(15.0..40.0),
        actor("amber/m").fails(24.0..32.0),
        actor("green/m"),
    ];
    let world = World::new(&strategy("order"), all)
        .probes(32.0, "amber/m")
        .probes(40.0, "blue/m");
    let mut panel = panel(PER_SECOND, (125.0, 25.0), rates(&world.run(60.0), &THREE));
    panel.notes = vec![
        (15.0..40.0, ""),
        (15.0..24.0, "blue fails"),
        (24.0..32.0, "amber, too"),
    ];
    picture(
        "order: the first that works has everything",
        &[
            (BLUE, "blue, written first"),
            (AMBER, "amber, second"),
            (GREEN, "green, third"),
        ],
        vec![panel],
    )
}

fn weight() -> Picture {
    let weighs = |name, weight| actor(name).says(&format!("weight = {weight}"));
    let all = vec![
        weighs("blue/m", 6).fails(15.0..30.0),
        weighs("amber/m", 3),
        weighs("green/m", 1),
    ];
    let log = World::new(&strategy("weight"), all)
        .probes(30.0, "blue/m")
        .run(60.0);
    let mut panel = panel(PER_SECOND, (125.0, 25.0), rates(&log, &THREE));
    panel.notes = vec![
        (15.0..30.0, "blue fails"),
        (30.0..40.0, "it is brought back"),
    ];
    picture(
        "weight: each has its share",
        &[
            (BLUE, "blue, weight 6"),
            (AMBER, "amber, weight 3"),
            (GREEN, "green, weight 1"),
        ],
        vec![panel],
    )
}

fn latency() -> Picture {
    let slow = |t: f64| if (15.0..40.0).contains(&t) { 0.8 } else { 0.2 };
    let all = vec![
        Actor::new("blue/m").takes_over_time(slow),
        Actor::new("amber/m").takes(0.2),
        Actor::new("green/m").takes(0.4),
    ];
    let log = World::new(&strategy("latency"), all).run(60.0);
    let seen = |(colour, name): &(Colour, &str)| Line {
        colour,
        points: over(&log, 1.0, 2.0, |when| 1e3 * log.mean(name, when)),
    };
    let mut first = panel(
        "time to the first content, in milliseconds",
        (1_000.0, 250.0),
        Body::Over(Shape::Lines, THREE.iter().map(seen).collect()),
    );
    first.height = 120.0;
    first.notes = vec![(15.0..40.0, "blue is slow")];
    let mut second = panel(PER_SECOND, (125.0, 25.0), rates(&log, &THREE));
    second.notes = vec![(15.0..40.0, "")];
    picture(
        "latency: whoever answers soonest has the most",
        &[
            (BLUE, "blue"),
            (AMBER, "amber"),
            (GREEN, "green, twice as slow"),
        ],
        vec![first, second],
    )
}

fn least_busy() -> Picture {
    let all = vec![
        Actor::new("blue/m"),
        Actor::new("amber/m"),
        Actor::new("green/m").takes(0.3),
    ];
    let world = World::new(&strategy("least_busy"), all);
    let rate = |t: f64| {
        if (20.0..40.0).contains(&t) {
            160.0
        } else {
            60.0
        }
    };
    let log = world.rate_over_time(rate).run(60.0);
    let busy = |(colour, name): &(Colour, &str)| Line {
        colour,
        points: over(&log, 1.0, 1.0, |when| log.level(name, when)),
    };
    let mut first = panel(
        "requests under way, by target",
        (24.0, 8.0),
        Body::Over(Shape::Lines, THREE.iter().map(busy).collect()),
    );
    first.height = 120.0;
    first.notes = vec![(20.0..40.0, "more requests come")];
    let mut second = panel(PER_SECOND, (200.0, 50.0), rates(&log, &THREE));
    second.notes = vec![(20.0..40.0, "")];
    picture(
        "least_busy: all have as much under way",
        &[
            (BLUE, "blue"),
            (AMBER, "amber"),
            (GREEN, "green, three times as slow"),
        ],
        vec![first, second],
    )
}

const CHATS: usize = 0;
const PAPERS: usize = 1;

fn cost() -> Picture {
    let price = |name, input, output| {
        Actor::new(name).says(&format!("price = {{ input = {input}, output = {output} }}"))
    };
    let all = vec![
        Actor::new("green/m"),
        price("blue/m", 1, 8),
        price("amber/m", 3, 4),
    ];
    let long = "a".repeat(20_000);
    let log = World::new(&strategy("cost"), all)
        .words(move |t, dice| {
            // At first only chats, and then more and more papers.
            let papers = ((t - 10.0) / 40.0).clamp(0.0, 1.0);
            let (kind, prompt, limit) = if dice.part() < papers { (PAPERS, &*long, 500) } else { (CHATS, "hello", 2_000) };
            Words::of(kind, &format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{prompt}"}}],"max_tokens":{limit}}}"#))
        })
        .run(60.0);
    let came = |kind, colour| Line {
        colour,
        points: over(&log, 1.0, 1.5, |when| log.came(kind, when)),
    };
    let mut first = panel(
        "requests per second, by what they are",
        (125.0, 25.0),
        Body::Over(
            Shape::Stacked,
            vec![came(CHATS, GREY), came(PAPERS, VIOLET)],
        ),
    );
    first.height = 120.0;
    let mut second = panel(
        PER_SECOND,
        (125.0, 25.0),
        rates(
            &log,
            &[(AMBER, "amber/m"), (BLUE, "blue/m"), (GREEN, "green/m")],
        ),
    );
    second.height = 120.0;
    picture(
        "cost: the cheapest for the very request",
        &[
            (GREY, "long answer"),
            (VIOLET, "long prompt"),
            (AMBER, "amber: $3 in, $4 out"),
            (BLUE, "blue: $1 in, $8 out"),
            (GREEN, "green: no price"),
        ],
        vec![first, second],
    )
}

const TALKS: usize = 36;

fn sticky() -> Picture {
    let sticky = strategy("sticky");
    let all = ["blue/m", "amber/m", "green/m", "violet/m"];
    let world = World::new(&sticky, all.map(Actor::new).into()).rate(18.0);
    let world = world.words(|_, dice| {
        let group = dice.below(TALKS);
        Words::of(
            group,
            &format!(r#"{{"model":"m","prompt_cache_key":"talk {group}"}}"#),
        )
    });
    let log = world
        .changes(0.0, &sticky, &all[..3])
        .changes(30.0, &sticky, &all)
        .run(60.0);
    // Those of one home under each other, and in those the ones that move last.
    let home = |group: usize, from: f64| {
        let mut all = log.tries.iter();
        all.find(|it| it.group == group && it.at > from)
            .map(|it| it.actor)
    };
    let mut rows: Vec<usize> = (0..TALKS).collect();
    rows.sort_by_key(|group| (home(*group, 0.0), home(*group, 30.0), *group));
    let colours = [BLUE, AMBER, GREEN, VIOLET];
    let dots = colours.into_iter().enumerate().map(|(actor, colour)| {
        let all = log.tries.iter().filter(|it| it.actor == actor);
        let row = |group| rows.iter().position(|row| *row == group).unwrap();
        (colour, all.map(|it| (it.at, row(it.group))).collect())
    });
    let body = Body::Dots {
        rows: TALKS,
        dots: dots.collect(),
    };
    let mut panel = panel(
        "each row a conversation, each dot a request",
        (1.0, 0.0),
        body,
    );
    panel.height = 324.0;
    panel.notes = vec![(30.0..60.0, "violet is one of the targets")];
    picture(
        "sticky: a conversation stays where it is",
        &[
            (BLUE, "blue"),
            (AMBER, "amber"),
            (GREEN, "green"),
            (VIOLET, "violet, new after 30 s"),
        ],
        vec![panel],
    )
}

fn tier() -> Picture {
    let all = vec![
        actor("blue/m").says("weight = 2").fails(12.0..40.0),
        actor("amber/m").says("weight = 1").fails(22.0..36.0),
        actor("green/m").says("tier = 1"),
    ];
    let world = World::new(&strategy("weight"), all)
        .probes(36.0, "amber/m")
        .probes(40.0, "blue/m");
    let mut panel = panel(PER_SECOND, (125.0, 25.0), rates(&world.run(60.0), &THREE));
    panel.notes = vec![(12.0..22.0, "blue fails"), (22.0..36.0, "amber, too")];
    picture(
        "tier: the next one is asked while all above it rest",
        &[
            (BLUE, "blue, tier 0, weight 2"),
            (AMBER, "amber, tier 0, weight 1"),
            (GREEN, "green, tier 1"),
        ],
        vec![panel],
    )
}

fn recovery() -> Picture {
    let ways = [
        (GREY, "order"),
        (BLUE, "weight"),
        (AMBER, "latency"),
        (GREEN, "least_busy"),
        (VIOLET, "sticky"),
    ];
    let line = |(colour, name): (Colour, &str)| {
        let all = vec![actor("a/m").fails(5.0..10.0), actor("b/m"), actor("c/m")];
        let world = World::new(&strategy(name), all).rate(300.0);
        let world = world.words(|_, dice| {
            let user = dice.below(5_000);
            Words::of(user, &format!(r#"{{"model":"m","user":"user {user}"}}"#))
        });
        let log: Log = world.probes(10.0, "a/m").run(30.0);
        let whole = if name == "order" { 300.0 } else { 100.0 };
        let points = over(&log, 0.5, 1.5, |when| 100.0 * log.rate("a/m", when) / whole);
        Line { colour, points }
    };
    let body = Body::Over(Shape::Lines, ways.map(line).into());
    let mut panel = panel("per cent of its usual share", (125.0, 25.0), body);
    panel.notes = vec![(5.0..10.0, "it fails"), (10.0..20.0, "it is brought back")];
    let legend = [
        (GREY, "order, cost"),
        (BLUE, "weight"),
        (AMBER, "latency"),
        (GREEN, "least_busy"),
        (VIOLET, "sticky"),
    ];
    let mut picture = picture(
        "recovery: little by little, where load is shared",
        &legend,
        vec![panel],
    );
    (picture.seconds, picture.tick) = (30.0, 5.0);
    picture
}

const PARTS: [(&str, f64); 5] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p99.9", 0.999),
];

fn hedging() -> Picture {
    let line = hedge::hedge("p95", 0.1);
    let run = |model: &str| World::new(model, hedge::two(0.04)).run(200.0);
    let (without, with) = (run(""), run(&line));
    let bars = PARTS.map(|(name, part)| {
        let seen = |log: &Log| log.waited(part, 1.0..195.0);
        (name, vec![(GREY, seen(&without)), (BLUE, seen(&with))])
    });
    let first = panel(
        "time to the first content, in seconds, where 4 of 100 answers take ten times as long",
        (3.0, 1.0),
        Body::Bars(bars.into()),
    );
    let slow = |t: f64| if (15.0..35.0).contains(&t) { 2.0 } else { 0.2 };
    let mut all = hedge::two(0.0);
    all[0] = Actor::new("a/m").takes_over_time(slow).hiccups(0.04);
    let log = World::new(&line, all).rate(400.0).run(60.0);
    let share = Line {
        colour: BLUE,
        points: over(&log, 0.5, 1.0, |when| 100.0 * log.hedged(when)),
    };
    let most = Line {
        colour: AMBER,
        points: vec![10.0; 2],
    };
    let mut second = panel(
        "hedged, of 100 requests",
        (15.0, 5.0),
        Body::Over(Shape::Lines, vec![most, share]),
    );
    second.height = 120.0;
    second.notes = vec![(15.0..35.0, "all take ten times as long")];
    let hedged = 100.0 * with.hedged(0.0..200.0);
    let legend = format!("with hedging: {hedged:.1} of 100 requests are asked twice");
    picture(
        "hedge: another is asked, too, where the first is late",
        &[
            (GREY, "without hedging"),
            (BLUE, legend.leak()),
            (AMBER, "at_most"),
        ],
        vec![first, second],
    )
}

#[test]
fn the_pictures_are_what_happens() {
    let update = std::env::var("UPDATE").is_ok_and(|update| update == "1");
    let pictures: [(&str, Draw); 9] = [
        ("order", order),
        ("weight", weight),
        ("latency", latency),
        ("least_busy", least_busy),
        ("cost", cost),
        ("sticky", sticky),
        ("tier", tier),
        ("recovery", recovery),
        ("hedge", hedging),
    ];
    let mut old = Vec::new();
    for (name, picture) in pictures {
        let svg = picture().svg();
        assert!(svg.len() < 30_000, "{name} has {} bytes", svg.len());
        let path = Path::new(FOLDER).join(format!("{name}.svg"));
        if update {
            fs::create_dir_all(FOLDER).unwrap();
            fs::write(&path, &svg).unwrap();
        }
        if fs::read_to_string(&path).unwrap_or_default() != svg {
            old.push(name);
        }
    }
    assert!(old.is_empty(), "{old:?} are old; UPDATE=1 draws them anew");
}
