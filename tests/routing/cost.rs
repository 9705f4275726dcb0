//! `cost`: the cheapest for the very request.

use crate::dice::Dice;
use crate::world::{Actor, Words, World};
use crate::{actors, name, strategy};

/// What a prompt is taken to have beyond its own bytes, at most, in tokens.
const TEMPLATE: usize = 256;

fn costs(name: &str, input: f64, output: f64) -> Actor {
    Actor::new(name).says(&format!("price = {{ input = {input}, output = {output} }}"))
}

fn world(all: impl Into<Vec<Actor>>) -> World {
    World::new(&strategy("cost"), all.into())
}

/// A prompt of so many bytes, with more members.
fn prompt(length: usize, more: &str) -> Words {
    let text = "a".repeat(length);
    let message = format!(r#"{{"role":"user","content":"{text}"}}"#);
    Words::of(
        0,
        &format!(r#"{{"model":"m","messages":[{message}]{more}}}"#),
    )
}

#[test]
fn a_long_prompt_goes_to_one_and_a_long_output_to_the_other() {
    let (reads, writes) = (["reads/m", "writes/m"], ["writes/m", "reads/m"]);
    let world = world([costs("writes/m", 4.0, 5.0), costs("reads/m", 1.0, 20.0)]);
    let limit = |tokens: usize| format!(r#","max_tokens":{tokens}"#);
    assert_eq!(world.order(&prompt(40_000, &limit(100)), 1), reads);
    assert_eq!(world.order(&prompt(100, &limit(4_000)), 1), writes);
    // They cost the same where the output is a fifth of the input.
    for length in [0, 1_000, 10_000, 100_000] {
        let input = prompt(length, &limit(11_111)).body.len() + TEMPLATE;
        for (output, wanted) in [(input / 5 - 3, reads), (input / 5 + 3, writes)] {
            let padded = length + 5 - output.to_string().len();
            let order = world.order(&prompt(padded, &limit(output)), 1);
            assert_eq!(order, wanted, "{input} and {output}");
        }
    }
}

#[test]
fn who_gives_no_limit_may_get_as_much_as_the_usual_one() {
    // As much output as `output_cap` says, 4,096 tokens: against so much a prompt of 15,000 bytes is short, and one of 25,000 long.
    let world = world([costs("writes/m", 4.0, 5.0), costs("reads/m", 1.0, 20.0)]);
    assert_eq!(world.order(&prompt(15_000, ""), 1)[0], "writes/m");
    assert_eq!(world.order(&prompt(25_000, ""), 1)[0], "reads/m");
    // Four answers are four times as much output.
    assert_eq!(world.order(&prompt(25_000, r#","n":4"#), 1)[0], "writes/m");
}

#[test]
fn whose_price_is_not_known_comes_last_and_who_costs_nothing_first() {
    let unknown = [Actor::new("unknown/m"), Actor::new("unknown/n")];
    let mut all = Vec::from(unknown);
    all.extend([
        costs("dear/m", 5.0, 5.0),
        costs("cheap/m", 1.0, 1.0),
        costs("free/m", 0.0, 0.0),
    ]);
    let wanted = ["free/m", "cheap/m", "dear/m", "unknown/m", "unknown/n"];
    assert_eq!(world(all).order(&Words::plain(), 1), wanted);
}

#[test]
fn those_that_cost_the_same_are_asked_as_they_are_written() {
    let all = || {
        [
            costs("c/m", 2.0, 2.0),
            costs("b/m", 1.0, 3.0),
            costs("a/m", 2.0, 2.0),
            costs("d/m", 1.0, 3.0),
        ]
    };
    let all = world(all());
    for seed in 0..20 {
        assert_eq!(
            all.order(&prompt(9_000, ""), seed),
            ["b/m", "d/m", "c/m", "a/m"]
        );
        assert_eq!(
            all.order(&prompt(900, r#","max_tokens":2000"#), seed),
            ["c/m", "a/m", "b/m", "d/m"]
        );
    }
    // Of two that bound a request otherwise, and come to the same.
    let limited = costs("a/m", 0.0, 2.0).more("max_output = 100");
    let all = world([costs("b/m", 0.0, 1.0), limited, costs("c/m", 0.0, 1.0)]);
    let asks = |tokens| prompt(9, &format!(r#","max_tokens":{tokens}"#));
    assert_eq!(all.order(&asks(200), 1), ["b/m", "a/m", "c/m"]);
    assert_eq!(all.order(&asks(201), 1), ["a/m", "b/m", "c/m"]);
    assert_eq!(all.order(&asks(199), 1), ["b/m", "c/m", "a/m"]);
}

#[test]
fn a_price_that_rises_with_the_prompt_counts_for_the_prompt_at_hand() {
    let tiers = "tiers = [{ above = 20000, input = 10, output = 10 }]";
    let rises = format!("price = {{ input = 1, output = 1, {tiers} }}");
    let all = world([
        costs("flat/m", 3.0, 3.0),
        Actor::new("rises/m").says(&rises),
    ]);
    let asks = |length| prompt(length, r#","max_tokens":100"#);
    assert_eq!(all.order(&asks(15_000), 1), ["rises/m", "flat/m"]);
    assert_eq!(all.order(&asks(25_000), 1), ["flat/m", "rises/m"]);
}

#[test]
fn what_no_bound_is_known_of_goes_by_the_price_of_its_tokens_all_the_same() {
    let all = world([costs("dear/m", 5.0, 5.0), costs("cheap/m", 1.0, 1.0)]);
    for more in [
        r#","service_tier":"priority""#,
        r#","tools":[{"type":"web_search"}]"#,
        r#","web_search_options":{}"#,
    ] {
        assert_eq!(
            all.order(&prompt(9, more), 1),
            ["cheap/m", "dear/m"],
            "{more}"
        );
    }
}

#[test]
fn forty_prices_are_in_order_for_every_request() {
    let mut dice = Dice::of(3);
    let prices: Vec<(u32, u32)> = (0..40)
        .map(|_| (dice.next() % 9, dice.next() % 9))
        .map(|(input, output)| {
            (
                u32::try_from(input).unwrap(),
                u32::try_from(output).unwrap(),
            )
        })
        .collect();
    let all = prices.iter().enumerate();
    let all =
        all.map(|(n, (input, output))| costs(&name(n), f64::from(*input), f64::from(*output)));
    let all = world(all.collect::<Vec<_>>());
    for tokens in [10, 1_000, 3_000, 100_000] {
        let words = prompt(2_000, &format!(r#","max_tokens":{tokens}"#));
        let input = u32::try_from(words.body.len() + TEMPLATE).unwrap();
        let mut wanted: Vec<usize> = (0..40).collect();
        wanted.sort_by_key(|n| prices[*n].0 * input + prices[*n].1 * tokens);
        let wanted: Vec<String> = wanted.into_iter().map(name).collect();
        // After sixteen of a large tier the others come as they are written.
        assert_eq!(all.order(&words, 1)[..16], wanted[..16], "{tokens}");
    }
}

#[test]
fn the_next_cheapest_helps_while_the_cheapest_rests() {
    let mut all = actors(1);
    all.extend([
        costs("dear/m", 5.0, 5.0),
        costs("cheap/m", 1.0, 1.0).fails(20.0..40.0),
    ]);
    let log = world(all).run(80.0);
    let all_go_to = |name, when: std::ops::Range<f64>| {
        assert!(log.share(name, when.clone()) > 0.999, "{name}: {when:?}");
    };
    all_go_to("cheap/m", 0.0..20.0);
    all_go_to("dear/m", 20.0..40.0);
    all_go_to("cheap/m", log.back("cheap/m", 40.0) + 0.2..80.0);
    assert_eq!(
        log.asked("p0/m", 0.0..80.0),
        0,
        "nobody knows what it costs"
    );
    assert!(log.lost.is_empty());
}
