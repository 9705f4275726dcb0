//! Targets that fail are left alone, and asked again when they work: by their own faults, and by nobody else's.

use std::time::{Duration, Instant};

use http::Method;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::client::{self, Answer};
use crate::support::http2::{Http2, Manners};
use crate::support::{
    Act, CHAT, DONE, FINISH, Gateway, Provider, ask, chat, chat_stream, completion, delta, model,
    provider_at, until,
};

const FAILS: &str = r#"{"error":{"message":"no","type":"server_error"}}"#;

/// A target rests for about so long, at first.
const COOLDOWN: Duration = Duration::from_millis(300);
/// One try each, so that a request is a failure.
const ONCE: &str = "tries = 1\ncooldown = \"300ms\"";

fn fails() -> Act {
    Act::status(500, FAILS)
}

fn says(text: &str) -> Act {
    Act::json(completion(text))
}

async fn two(a: &Provider, b: &Provider) -> Gateway {
    let text = provider_at("a", a.address, ONCE)
        + &provider_at("b", b.address, ONCE)
        + &model("fast", &["a/x", "b/y"], "")
        + &model("other", &["a/z"], "");
    Gateway::start(&text).await
}

async fn alone(a: &Provider) -> Gateway {
    let more = &(ONCE.to_owned() + "\ntimeouts = { first_byte = \"500ms\" }");
    let text = provider_at("a", a.address, more)
        + &model("fast", &["a/x"], "")
        + &model("other", &["a/z"], "");
    Gateway::start(&text).await
}

async fn fast(gateway: &Gateway) -> Answer {
    ask(gateway, chat("fast")).await
}

fn is_up(gateway: &Gateway, target: &str) -> bool {
    gateway.metric(&format!("tollgate_target_up{{target=\"{target}\"}}")) > 0.0
}

/// So many requests, of which so many are under way at once. All are answered.
async fn crowd(gateway: &Gateway, requests: usize, at_once: usize) -> Vec<Answer> {
    let address = gateway.address;
    let mut asking = JoinSet::new();
    let mut answers = Vec::new();
    for _ in 0..requests {
        if asking.len() == at_once {
            answers.push(asking.join_next().await.unwrap().unwrap());
        }
        asking.spawn(client::post(address, CHAT, "", chat("fast")));
    }
    while let Some(answer) = asking.join_next().await {
        answers.push(answer.unwrap());
    }
    answers
}

#[tokio::test]
async fn a_provider_that_dies_under_load_costs_no_answer_and_few_tries() {
    let works = std::iter::repeat_n(says("a"), 200);
    let a = Provider::new(works.chain([fails()])).await;
    let b = Provider::new([says("b")]).await;
    let gateway = two(&a, &b).await;
    let answers = crowd(&gateway, 1_000, 16).await;
    for answer in &answers {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let tries = a.count() + b.count();
    assert!(tries <= 1_200, "{tries} tries of 1000 requests");
    assert!(a.count() < 300, "{} asked a target that is dead", a.count());
    assert!(!is_up(&gateway, "a/x") && is_up(&gateway, "b/y"));
}

#[tokio::test]
async fn a_target_that_comes_back_is_used_within_its_cooldown() {
    let dead = std::iter::repeat_n(fails(), 5);
    let a = Provider::new(dead.chain([says("a")])).await;
    let b = Provider::new([says("b")]).await;
    let gateway = two(&a, &b).await;
    for _ in 0..8 {
        assert!(fast(&gateway).await.text().contains("\"b\""));
    }
    assert_eq!(a.count(), 5, "three were not sent to it");
    sleep(COOLDOWN).await;
    assert!(fast(&gateway).await.text().contains("\"a\""));
    assert!(is_up(&gateway, "a/x"));
    assert!(fast(&gateway).await.text().contains("\"a\""));
}

#[tokio::test]
async fn one_that_flaps_does_not_starve_the_one_that_works() {
    let turns = (0..400).map(|n| if n % 12 < 6 { fails() } else { says("a") });
    let a = Provider::new(turns).await;
    let b = Provider::new([says("b")]).await;
    let gateway = two(&a, &b).await;
    for answer in crowd(&gateway, 1_000, 8).await {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert!(b.count() > 500, "{} of 1000", b.count());
}

#[tokio::test]
async fn where_all_rest_one_at_a_time_is_tried_and_the_others_hear_when_to_come_back() {
    let dead = std::iter::repeat_n(fails(), 5);
    let slow = Act::After(Duration::from_millis(200), Box::new(says("a")));
    let a = Provider::new(dead.chain([slow])).await;
    let gateway = alone(&a).await;
    for _ in 0..5 {
        assert_eq!(fast(&gateway).await.status, 502);
    }
    let answers = crowd(&gateway, 10, 10).await;
    let (told, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|it| it.status == 200);
    assert_eq!((told.len(), refused.len(), a.count()), (1, 9, 6));
    for answer in refused {
        assert_eq!(
            (answer.status.as_u16(), &*answer.code()),
            (503, "no_target_available")
        );
        assert_eq!(answer.header("x-should-retry"), Some("true"));
        assert!(answer.header("retry-after").is_some());
        assert!(
            answer
                .text()
                .contains("a/x was not asked: it failed again and again")
        );
    }
    assert_eq!(fast(&gateway).await.status, 200, "it works again");
}

#[tokio::test]
async fn whoever_says_for_how_long_it_is_busy_is_left_alone_for_so_long() {
    let busy = Act::status(429, FAILS).with("retry-after-ms", "600");
    let a = Provider::new([busy.clone(), says("a")]).await;
    let b = Provider::new([says("b")]).await;
    let gateway = two(&a, &b).await;
    for _ in 0..3 {
        assert!(fast(&gateway).await.text().contains("\"b\""));
    }
    assert_eq!(a.count(), 1);
    assert_eq!(
        ask(&gateway, chat("other")).await.status,
        200,
        "another model of it"
    );
    sleep(Duration::from_millis(600)).await;
    assert!(fast(&gateway).await.text().contains("\"a\""));
    // Alone, it is waited for, and nobody else is sent to it meanwhile.
    let a = Provider::new([Act::status(429, FAILS).with("retry-after", "20"), says("a")]).await;
    let gateway = alone(&a).await;
    for _ in 0..3 {
        let answer = fast(&gateway).await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.code()),
            (429, "rate_limit_exceeded")
        );
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((18..=20).contains(&wait), "{wait}");
    }
    assert_eq!(a.count(), 1);
}

#[tokio::test]
async fn who_comes_while_the_only_target_has_no_time_waits_for_it_if_that_is_short() {
    let a = Provider::new([
        Act::status(429, FAILS).with("retry-after-ms", "300"),
        says("a"),
    ])
    .await;
    let gateway = alone(&a).await;
    assert_eq!(fast(&gateway).await.status.as_u16(), 429, "one try each");
    for answer in crowd(&gateway, 8, 8).await {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(a.count(), 9);
}

#[tokio::test]
async fn whoever_answers_and_has_nothing_left_is_left_alone_before_it_says_no() {
    let last = says("a")
        .with("x-ratelimit-remaining-requests", "0")
        .with("x-ratelimit-reset-requests", "600ms");
    let a = Provider::new([last, says("a")]).await;
    let b = Provider::new([says("b")]).await;
    let gateway = two(&a, &b).await;
    assert!(fast(&gateway).await.text().contains("\"a\""));
    for _ in 0..3 {
        assert!(fast(&gateway).await.text().contains("\"b\""));
    }
    sleep(Duration::from_millis(600)).await;
    assert!(fast(&gateway).await.text().contains("\"a\""));
}

/// Five hundred requests a second, half of them for streams, while a provider goes away for good.
#[tokio::test]
async fn a_provider_that_goes_away_under_five_hundred_a_second_costs_no_answer_that_had_not_begun()
{
    const REQUESTS: usize = 1_500;
    let pause = Duration::from_millis(10);
    let events = [delta("a"), delta("a"), FINISH.into(), DONE.into()];
    let slow = |stream| match stream {
        true => Act::Slow(pause, events.to_vec()),
        false => Act::After(pause, Box::new(says("a"))),
    };
    let (a, c) = (
        Provider::new([slow(false)]).await,
        Provider::new([slow(true)]).await,
    );
    let (b, d) = (
        Provider::new([slow(false)]).await,
        Provider::new([slow(true)]).await,
    );
    let providers = [("a", &a), ("b", &b), ("c", &c), ("d", &d)];
    let text: String = providers
        .map(|(name, it)| provider_at(name, it.address, ""))
        .concat();
    let text = text + &model("fast", &["a/x", "b/y"], "") + &model("flow", &["c/x", "d/y"], "");
    let gateway = Gateway::start(&text).await;
    let address = gateway.address;
    let (mut asking, mut dying) = (JoinSet::new(), Some((a, c)));
    let mut turns = tokio::time::interval(Duration::from_millis(2));
    // On a machine that has too much to do, fewer: not all that it missed, at once.
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for n in 0..REQUESTS {
        turns.tick().await;
        if n == REQUESTS / 3 {
            dying = None;
        }
        let body = match n % 2 {
            0 => chat("fast"),
            _ => chat_stream("flow"),
        };
        asking.spawn(client::post(address, CHAT, "", body));
    }
    assert!(dying.is_none());
    while let Some(answer) = asking.join_next().await {
        let answer = answer.unwrap();
        let text = answer.text();
        assert_eq!(answer.status, 200, "{text}");
        let has_begun = text.contains("\"content\":\"a\"");
        let is_stream = text.starts_with("data:");
        assert!(
            !is_stream || text.ends_with(DONE) || (has_begun && text.contains("upstream_error")),
            "{text}"
        );
    }
    let metrics = gateway.metrics();
    let tries = metrics
        .lines()
        .filter(|line| line.starts_with("tollgate_tries_total{"));
    let tries: f64 = tries
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    assert!(tries <= 1.2 * 1_500.0, "{tries} tries");
}

#[tokio::test]
async fn a_key_that_is_refused_is_shown_for_no_model_until_there_is_another_configuration() {
    let a = Provider::new([Act::status(401, FAILS)]).await;
    let b = Provider::new([says("b")]).await;
    let gateway = two(&a, &b).await;
    for _ in 0..3 {
        assert_eq!(fast(&gateway).await.status, 200);
    }
    assert!(!is_up(&gateway, "a/z"));
    assert_eq!(a.count(), 3);
    let text = provider_at("a", a.address, ONCE) + &model("other", &["a/z"], "");
    gateway.apply(&text).unwrap();
    assert!(is_up(&gateway, "a/z"));
}

#[tokio::test]
async fn what_failed_rests_on_over_a_reload() {
    let a = Provider::new([fails()]).await;
    let gateway = alone(&a).await;
    for _ in 0..5 {
        fast(&gateway).await;
    }
    let more = "tries = 1\ncooldown = \"5m\"";
    let text = provider_at("a", a.address, more) + &model("quick", &["a/x"], "");
    gateway.apply(&text).unwrap();
    assert!(!is_up(&gateway, "a/x"));
}

#[tokio::test]
async fn answers_that_break_off_are_failures_too() {
    let a = Provider::new([Act::Cut(vec![delta("a")])]).await;
    let gateway = alone(&a).await;
    for _ in 0..5 {
        assert!(is_up(&gateway, "a/x"));
        let text = ask(&gateway, chat_stream("fast")).await.text();
        assert!(
            text.contains("upstream_error") && !text.contains("[DONE]"),
            "{text}"
        );
    }
    until("it rests", || !is_up(&gateway, "a/x")).await;
    let b = Provider::new([Act::events([delta("b"), FINISH.into(), DONE.into()])]).await;
    // It rests for longer than all of this takes, however slow the machine is.
    let text = provider_at("a", a.address, "tries = 1\ncooldown = \"1m\"")
        + &provider_at("b", b.address, ONCE)
        + &model("fast", &["a/x", "b/y"], "");
    let gateway = Gateway::start(&text).await;
    let before = a.count();
    for _ in 0..5 {
        ask(&gateway, chat_stream("fast")).await;
    }
    // Its last failure is known a moment after the client has read of it.
    until("it rests", || !is_up(&gateway, "a/x")).await;
    for _ in 0..15 {
        ask(&gateway, chat_stream("fast")).await;
    }
    assert_eq!(a.count() - before, 5, "its answers are somebody else's now");
}

#[tokio::test]
async fn a_stream_that_is_reset_is_a_failure_on_a_connection_that_was_kept_too() {
    let a = Http2::plain(Manners::default(), [Act::Reset]).await;
    let more = "http2 = true\ntries = 1";
    let text = provider_at("a", a.address, more) + &model("fast", &["a/x"], "");
    let gateway = Gateway::start(&text).await;
    for _ in 0..5 {
        assert!(is_up(&gateway, "a/x"));
        assert_eq!(fast(&gateway).await.status, 502);
    }
    assert!(a.connections() < 5, "they were kept");
    assert!(!is_up(&gateway, "a/x"));
}

#[tokio::test]
async fn a_stream_that_is_passed_on_without_content_does_not_end_a_rest() {
    let role = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"}}]}\n\n";
    let dead = std::iter::repeat_n(fails(), 5);
    let a = Provider::new(dead.chain([Act::Stall(vec![role.into()])])).await;
    let b = Provider::new([Act::events([delta("b"), FINISH.into(), DONE.into()])]).await;
    let more =
        "tries = 1\ncooldown = \"300ms\"\nprelude = \"20ms\"\ntimeouts = { idle = \"400ms\" }";
    let text = provider_at("a", a.address, more)
        + &provider_at("b", b.address, ONCE)
        + &model("fast", &["a/x", "b/y"], "");
    let gateway = Gateway::start(&text).await;
    for _ in 0..5 {
        ask(&gateway, chat_stream("fast")).await;
    }
    sleep(COOLDOWN).await;
    let (trying, others) = tokio::join!(ask(&gateway, chat_stream("fast")), async {
        until("somebody tries it", || a.count() == 6).await;
        sleep(Duration::from_millis(100)).await;
        ask(&gateway, chat_stream("fast")).await
    });
    assert!(
        trying.text().contains("upstream_timeout"),
        "{}",
        trying.text()
    );
    assert!(others.text().contains("\"b\""), "{}", others.text());
    assert_eq!(a.count(), 6, "it said hello, and no more");
}

#[tokio::test]
async fn who_had_no_time_left_is_not_blamed_for_those_who_took_it() {
    let slow = Act::After(Duration::from_millis(250), Box::new(fails()));
    let a = Provider::new([slow]).await;
    let b = Provider::new([Act::Hang]).await;
    let never = "tries = 1\ncooldown = \"0s\"";
    let text = provider_at("a", a.address, never)
        + &provider_at("b", b.address, ONCE)
        + &model("fast", &["a/x", "b/y"], "deadline = \"300ms\"");
    let gateway = Gateway::start(&text).await;
    for _ in 0..6 {
        assert_eq!(fast(&gateway).await.status, 504);
    }
    assert!(b.count() > 4 && is_up(&gateway, "b/y"));
}

#[tokio::test]
async fn all_who_waited_for_a_limit_are_served_at_once_when_it_begins_anew() {
    let (open, gate) = watch::channel(());
    // Nobody is told before all have asked, and each is told of a later time.
    let busy = (0..8).map(|n| {
        let busy = Act::status(429, FAILS).with("retry-after-ms", &format!("{}", 300 + 20 * n));
        Act::Told(gate.clone(), Box::new(busy))
    });
    let slow = Act::After(Duration::from_millis(700), Box::new(says("a")));
    let a = Provider::new(busy.chain([slow])).await;
    let text = provider_at("a", a.address, "tries = 2") + &model("fast", &["a/x"], "");
    let gateway = Gateway::start(&text).await;
    let (answers, ()) = tokio::join!(crowd(&gateway, 8, 8), async {
        until("all have asked", || a.count() == 8).await;
        open.send(()).unwrap();
    });
    for answer in answers {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(a.count(), 16);
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_nobodys_fault() {
    let wrong = [
        Act::status(
            400,
            r#"{"error":{"message":"maximum context length","code":"context_length_exceeded"}}"#,
        ),
        Act::status(422, r#"{"error":{"message":"no"}}"#),
        Act::status(
            400,
            r#"{"error":{"message":"flagged","code":"content_filter"}}"#,
        ),
    ];
    for act in wrong {
        let a = Provider::new([act]).await;
        let gateway = alone(&a).await;
        for _ in 0..20 {
            assert!(fast(&gateway).await.status.is_client_error());
        }
        assert!(is_up(&gateway, "a/x"));
        assert_eq!(a.count(), 20);
    }
}

#[tokio::test]
async fn whoever_cannot_be_reached_rests_with_all_its_models() {
    let b = Provider::new([says("b")]).await;
    let text = provider_at("a", Provider::nowhere(), ONCE)
        + &provider_at("b", b.address, ONCE)
        + &model("fast", &["a/x", "b/y"], "")
        + &model("other", &["a/z", "b/y"], "");
    let gateway = Gateway::start(&text).await;
    for _ in 0..5 {
        assert_eq!(fast(&gateway).await.status, 200);
    }
    assert!(!is_up(&gateway, "a/z"));
    let answer = ask(&gateway, chat("other")).await;
    assert_eq!(answer.header("x-tollgate-tries"), Some("1"));
}

/// Asks with a time of the client's own.
async fn hurried(gateway: &Gateway, time: &'static str) -> Answer {
    let headers = [("x-tollgate-timeout", time)];
    client::whole(client::send(gateway.address, Method::POST, CHAT, &headers, chat("fast")).await)
        .await
}

#[tokio::test]
async fn a_client_may_have_less_time_and_that_is_no_fault_of_the_target() {
    let a = Provider::new([Act::Hang]).await;
    let gateway = alone(&a).await;
    #[expect(
        clippy::disallowed_methods,
        reason = "real sockets have no clock but the real one"
    )]
    let began = Instant::now();
    for _ in 0..6 {
        let answer = hurried(&gateway, "50ms").await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.code()),
            (504, "upstream_timeout")
        );
        assert!(answer.text().contains("deadline"), "{}", answer.text());
    }
    assert!(began.elapsed() < Duration::from_secs(3));
    assert!(is_up(&gateway, "a/x"));
    for wrong in ["soon", "-1", "0", "0s", "1y", "", "1e400s", "NaN"] {
        let answer = hurried(&gateway, wrong).await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.code()),
            (400, "invalid_request"),
            "{wrong}"
        );
        assert!(answer.text().contains("x-tollgate-timeout"));
    }
    // More than the route gives it does not have.
    for time in ["10m", "600", "1d", "18446744073709551615"] {
        assert!(hurried(&gateway, time).await.text().contains("first byte"));
    }
}

#[tokio::test]
async fn where_everything_fails_tries_are_hardly_more_than_requests() {
    // What never rests is asked for each request, and twice while there is an allowance.
    let (a, b) = (
        Provider::new([fails()]).await,
        Provider::new([fails()]).await,
    );
    let never = "tries = 2\ncooldown = \"0s\"";
    let text = provider_at("a", a.address, never)
        + &provider_at("b", b.address, never)
        + &model("fast", &["a/x", "b/y"], "");
    let gateway = Gateway::start(&text).await;
    let answers = crowd(&gateway, 1_000, 64).await;
    assert!(answers.iter().all(|answer| answer.status == 502));
    let spent = "too many requests for this model are being tried again";
    let told = answers.iter().filter(|it| it.text().contains(spent));
    assert!(told.count() > 800);
    let tries = a.count() + b.count();
    assert!(tries < 1_200, "{tries}");
}

#[tokio::test]
async fn one_request_is_tried_twelve_times_and_no_more() {
    let a = Provider::new([fails()]).await;
    let names: Vec<String> = (0..15).map(|n| format!("a/m{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let text = provider_at("a", a.address, ONCE) + &model("fast", &names, "");
    let gateway = Gateway::start(&text).await;
    for asked in 1..=2 {
        assert_eq!(fast(&gateway).await.status, 502);
        assert_eq!(a.count(), 12 * asked);
    }
}

#[tokio::test]
async fn a_stream_that_ends_well_says_so_to_the_health_of_its_target() {
    let good = || Act::events([delta("a"), FINISH.into(), DONE.into()]);
    let acts = (0..40).map(|n| {
        if n % 5 == 4 {
            good()
        } else {
            Act::Cut(vec![delta("a")])
        }
    });
    let a = Provider::new(acts).await;
    let gateway = alone(&a).await;
    // Four of five break off, but never five in a row: it is their share that tells.
    let mut asked = 0;
    while is_up(&gateway, "a/x") {
        ask(&gateway, chat_stream("fast")).await;
        asked += 1;
        assert!(asked < 40);
    }
    assert!(asked >= 19, "{asked}");
}
