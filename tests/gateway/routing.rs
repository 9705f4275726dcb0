//! Who is asked, over real sockets: what an operator writes reaches the strategy, and so does what a client says. How each of
//! them does in the long run is in `tests/routing`.

use hyper::Method;
use tempfile::TempDir;

use crate::support::client::{self, Answer};
use crate::support::gateway::load;
use crate::support::{Act, CHAT, Gateway, Provider, chat, completion, post, provider_at};

/// Providers that answer with their names.
async fn two() -> [Provider; 2] {
    [
        Provider::new([Act::json(completion("a"))]).await,
        Provider::new([Act::json(completion("b"))]).await,
    ]
}

/// `fast` goes to `a/x` and `b/y`, each with more in its entry, and with more lines of its own.
fn to(all: &[Provider; 2], says: [&str; 2], more: &str) -> String {
    let [a, b] = all;
    let [x, y] = says;
    let targets = format!("targets = [{{ to = \"a/x\"{x} }}, {{ to = \"b/y\"{y} }}]");
    provider_at("a", a.address, "tries = 1\nfree = false")
        + &provider_at("b", b.address, "tries = 1\nfree = false")
        + &format!("[models.fast]\n{targets}\n{more}\n")
}

async fn ask(gateway: &Gateway) -> Answer {
    let answer = post(gateway.address, CHAT, "", chat("fast")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer
}

#[tokio::test]
async fn weights_share_requests_between_two_providers() {
    let all = two().await;
    let says = [", weight = 3", ", weight = 1"];
    let gateway = Gateway::start(&to(&all, says, "strategy = \"weight\"")).await;
    for _ in 0..400 {
        ask(&gateway).await;
    }
    let [a, b] = all.each_ref().map(Provider::count);
    assert_eq!(a + b, 400);
    // 300, with six times the deviation to either side.
    assert!((248..=352).contains(&a), "{a}");
}

#[tokio::test]
async fn the_lower_tier_is_asked_when_the_upper_one_rests() {
    let all = [
        Provider::new([Act::status(500, "{}")]).await,
        Provider::new([Act::json(completion("b"))]).await,
    ];
    let [a, b] = &all;
    // Written last, and asked first.
    let targets = "targets = [{ to = \"b/y\", tier = 1 }, \"a/x\"]";
    let text = provider_at("a", a.address, "tries = 1\ncooldown = \"1m\"")
        + &provider_at("b", b.address, "")
        + &format!("[models.fast]\n{targets}\nstrategy = \"least_busy\"\n");
    let gateway = Gateway::start(&text).await;
    for n in 1..=20 {
        let answer = ask(&gateway).await;
        let tries = answer.header("x-tollgate-tries").unwrap().to_owned();
        // After five failures in a row it rests.
        assert_eq!(tries, if n <= 5 { "2" } else { "1" }, "{n}");
        assert_eq!(answer.header("x-tollgate-target"), Some("b/y"));
    }
    assert_eq!((a.count(), b.count()), (5, 20));
}

#[tokio::test]
async fn a_session_stays_with_its_target() {
    let all = two().await;
    let sticky = "strategy = \"sticky\"\nsticky_by = [\"header:X-Session\"]";
    let gateway = Gateway::start(&to(&all, ["", ""], sticky)).await;
    let asks = async |session: &str| {
        let headers = [("x-session", session)];
        let coming = client::send(gateway.address, Method::POST, CHAT, &headers, chat("fast"));
        let answer = client::whole(coming.await).await;
        answer.header("x-tollgate-target").unwrap().to_owned()
    };
    let mut homes = Vec::new();
    for n in 0..30 {
        homes.push(asks(&format!("session {n}")).await);
    }
    let at_a = homes.iter().filter(|home| *home == "a/x").count();
    assert!((5..=25).contains(&at_a), "{homes:?}");
    // The same after a reload that turns the targets round.
    let text = to(&all, ["", ""], sticky).replace(
        "{ to = \"a/x\" }, { to = \"b/y\" }",
        "{ to = \"b/y\" }, { to = \"a/x\" }",
    );
    gateway
        .apply(&text)
        .unwrap_or_else(|flaws| panic!("{flaws}"));
    for (n, home) in homes.iter().enumerate() {
        assert_eq!(asks(&format!("session {n}")).await, *home, "{n}");
    }
}

#[tokio::test]
async fn the_cheapest_is_asked_for_the_very_request() {
    let all = two().await;
    let prices = [
        ", price = { input = 4, output = 5 }",
        ", price = { input = 1, output = 20 }",
    ];
    let gateway = Gateway::start(&to(&all, prices, "strategy = \"cost\"")).await;
    let asks = async |prompt: usize, limit: u32| {
        let prompt = "a".repeat(prompt);
        let body = format!(
            r#"{{"model":"fast","max_tokens":{limit},"messages":[{{"role":"user","content":"{prompt}"}}]}}"#
        );
        let answer = post(gateway.address, CHAT, "", body).await;
        answer.header("x-tollgate-target").unwrap().to_owned()
    };
    assert_eq!(asks(10, 1_000).await, "a/x", "a long answer");
    assert_eq!(asks(10_000, 10).await, "b/y", "a long prompt");
}

/// What is wrong with a model of two targets, with such lines and such entries.
fn flaws(lines: &str, says: [&str; 2]) -> String {
    let folder = TempDir::new().unwrap();
    let [x, y] = says;
    let provider = |name: &str| provider_at(name, "127.0.0.1:1".parse().unwrap(), "free = false");
    let text = format!(
        "{}{}[models.fast]\n{lines}\ntargets = [\n  {{ to = \"a/x\"{x} }},\n  {{ to = \"b/y\"{y} }},\n]\n",
        provider("a"),
        provider("b")
    );
    let listen = "listen = \"127.0.0.1:0\"";
    let compiled = load(&folder, listen, &text).and_then(|loaded| loaded.compile());
    match compiled {
        Ok(plan) => format!("warns: {}", plan.warnings.join("; ")),
        Err(flaws) => flaws.0.join("\n"),
    }
}

#[test]
fn what_is_no_strategy_is_refused_and_what_says_nothing_is_warned_of() {
    let none = ["", ""];
    for (lines, says, wanted) in [
        (
            "strategy = \"fastest\"",
            none,
            "gateway.toml:17: models.fast.strategy: no strategy is called `fastest`; there are \"order\", \"weight\", \
             \"latency\", \"least_busy\", \"cost\" and \"sticky\"",
        ),
        (
            "strategy = \"sticky\"\nsticky_by = [\"user\", \"colour\"]",
            none,
            "gateway.toml:18: models.fast.sticky_by[1]: `colour` is nothing that requests belong together by; there are \
             \"header:NAME\", \"prompt_cache_key\", \"user\" and \"messages\"",
        ),
        (
            "strategy = \"sticky\"\nsticky_by = [\"header:x session\"]",
            none,
            "gateway.toml:18: models.fast.sticky_by[0]: `x session` is no name of a header",
        ),
        (
            "strategy = \"sticky\"\nsticky_by = []",
            none,
            "gateway.toml:18: models.fast.sticky_by: says by nothing what belongs together; leave it out for the usual",
        ),
        (
            "strategy = \"weight\"",
            ["", ", weight = 1000001"],
            "gateway.toml:20: models.fast.targets[1].weight: is more than 1000000",
        ),
        (
            "strategy = \"weight\"",
            [", weight = 0", ", weight = 0"],
            "gateway.toml:18: models.fast.targets: every weight is 0: give one target some",
        ),
        (
            "strategy = \"latency\"",
            ["", ", weight = 3"],
            "warns: models.fast.targets[1]: `weight` says nothing but with strategy = \"weight\"",
        ),
        (
            "strategy = \"cost\"",
            [", price = { input = 1, output = 1 }", ""],
            "warns: models.fast: nobody knows what b/y costs: with strategy = \"cost\" it is asked last",
        ),
        (
            "sticky_by = [\"user\"]",
            none,
            "warns: models.fast: `sticky_by` says nothing but with strategy = \"sticky\"",
        ),
        ("strategy = \"weight\"", ["", ", weight = 0"], "warns: "),
        (
            "strategy = \"sticky\"",
            [", tier = 4294967295", ""],
            "warns: ",
        ),
    ] {
        assert_eq!(flaws(lines, says), wanted, "{lines}");
    }
}
