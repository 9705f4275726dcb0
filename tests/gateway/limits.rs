//! Limits: how much may be done at once, in a minute and in a day; and that who is refused has consumed nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::StatusCode;

use crate::support::client::{self, Coming, Socket};
use crate::support::money::{asks, asks_at, fast, key, of, question, streamed, strict};
use crate::support::{Act, DONE, FINISH, Gateway, Hands, Provider, completion, delta, until};

/// A gateway to one target, and what follows.
fn free(provider: &Provider, more: &str) -> String {
    let price = "price = { input = 0, output = 0 }";
    [of("p", provider, ""), fast(price), more.to_owned()].concat()
}

async fn answering() -> Provider {
    Provider::new([Act::json(completion("hello"))]).await
}

/// A stream that does not end.
async fn opens(gateway: &Gateway, name: &str) -> Coming {
    let (address, key) = (gateway.address, format!("sk-{name}"));
    client::open(address, "/chat/completions", &key, streamed(&question(10))).await
}

async fn status(gateway: &Gateway, name: &str) -> u16 {
    asks(gateway, name, question(10)).await.status.as_u16()
}

#[tokio::test]
async fn who_is_at_a_limit_hears_which_and_how_long() {
    let provider = answering().await;
    let text = free(&provider, &key("ann", "limits = { rpm = 2, tpm = 1000 }"));
    let gateway = Gateway::start(&text).await;
    let first = asks(&gateway, "ann", question(10)).await;
    assert_eq!(first.status, 200);
    let header = |name| first.header(name).unwrap_or_default().to_owned();
    assert_eq!(header("x-ratelimit-limit-requests"), "2");
    assert_eq!(header("x-ratelimit-remaining-requests"), "1");
    assert_eq!(header("x-ratelimit-limit-tokens"), "1000");
    // A quarter of its bytes, and the ten that it may be answered with.
    let probable = question(10).len().div_ceil(4) + 10;
    let left = (1_000 - probable).to_string();
    assert_eq!(header("x-ratelimit-remaining-tokens"), left);
    assert!(header("x-ratelimit-reset-requests").starts_with("1m0s"));
    assert_eq!(status(&gateway, "ann").await, 200);
    let refused = asks(&gateway, "ann", question(10)).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.code(), "rate_limit_exceeded");
    let text = refused.text();
    assert!(
        text.contains("key ann is at its limit of 2 requests a minute (rpm); there is room in "),
        "{text}"
    );
    let wait: u64 = refused.header("retry-after-ms").unwrap().parse().unwrap();
    assert!((50_000..=60_000).contains(&wait), "{wait}");
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert_eq!(seconds, wait.div_ceil(1_000));
    assert_eq!(refused.header("x-should-retry"), Some("true"));
    assert_eq!(refused.header("x-ratelimit-remaining-requests"), Some("0"));
    assert_eq!(provider.count(), 2);
    let line = r#"tollgate_rejections_total{code="rate_limit_exceeded"}"#;
    assert!((gateway.metric(line) - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn who_is_refused_for_one_reason_has_consumed_nothing_of_another() {
    let provider = answering().await;
    let poor = format!("{}\nlimits = {{ rpm = 3, tpm = 400 }}", strict("\"1e-9\""));
    let busy = "limits = { rpm = 2, concurrency = 1 }";
    let small = "limits = { rpm = 2, tpm = 60 }";
    let text = [
        of("p", &provider, ""),
        fast("price = { input = 1, output = 1 }"),
    ]
    .concat();
    let text = text + &key("poor", &poor) + &key("busy", busy) + &key("small", small);
    let gateway = Gateway::start(&text).await;
    // Refused for money, nine times: no request and no token is counted.
    for _ in 0..9 {
        let refused = asks(&gateway, "poor", question(10)).await;
        assert_eq!(refused.code(), "budget_exceeded");
    }
    // Refused for what it is: neither.
    for body in ["{}", "{\"model\":\"nobody\"}", "nonsense"] {
        for _ in 0..3 {
            let refused = asks(&gateway, "small", body).await;
            assert!(refused.status.is_client_error());
            assert_ne!(refused.status, 429);
        }
    }
    // Refused for its tokens: no request.
    assert_eq!(status(&gateway, "small").await, 200);
    for _ in 0..5 {
        let refused = asks(&gateway, "small", question(10_000)).await;
        assert!(
            refused.text().contains("60 tokens a minute (tpm)"),
            "{}",
            refused.text()
        );
    }
    assert_eq!(status(&gateway, "small").await, 200);
    // Refused for those under way: no request.
    let stalling = Provider::new([Act::Stall(vec![delta("a")])]).await;
    let gateway = Gateway::start(&free(&stalling, &key("busy", busy))).await;
    let first = opens(&gateway, "busy").await;
    for _ in 0..5 {
        let refused = opens(&gateway, "busy").await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    }
    drop(first);
    until("its slot is free", || gateway.in_flight() == 0).await;
    assert_eq!(opens(&gateway, "busy").await.status, 200);
}

#[tokio::test]
async fn a_slot_is_had_for_as_long_as_the_answer_goes() {
    let (go, told) = tokio::sync::watch::channel(());
    let rest = vec![FINISH.into(), DONE.into()];
    let provider = Provider::new([Act::Gated(vec![delta("a")], told, rest)]).await;
    let text = free(&provider, &key("ann", "limits = { concurrency = 2 }"));
    let gateway = Gateway::start(&text).await;
    let (one, two) = (opens(&gateway, "ann").await, opens(&gateway, "ann").await);
    let refused = asks(&gateway, "ann", question(10)).await;
    assert_eq!(refused.status, 429);
    assert!(
        refused
            .text()
            .contains("key ann has 2 requests under way, which is the most (concurrency)")
    );
    assert_eq!(refused.header("retry-after-ms"), Some("1000"));
    drop(one);
    until("it has left", || gateway.in_flight() == 1).await;
    let three = opens(&gateway, "ann").await;
    assert_eq!(three.status, 200, "whoever leaves makes room");
    assert_eq!(opens(&gateway, "ann").await.status, 429);
    go.send(()).unwrap();
    assert!(two.rest().await.1 && three.rest().await.1);
    until("they have ended", || gateway.in_flight() == 0).await;
    assert_eq!(opens(&gateway, "ann").await.status, 200);
}

#[tokio::test]
async fn tokens_are_taken_before_and_corrected_afterwards() {
    let (go, told) = tokio::sync::watch::channel(());
    let rest = vec![FINISH.into(), DONE.into()];
    let usage = r#""usage":{"prompt_tokens":80,"completion_tokens":120,"total_tokens":200}"#;
    let long = completion("x").replace(
        r#""usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}"#,
        usage,
    );
    let acts = [
        Act::Gated(vec![delta("a")], told, rest),
        Act::json(completion("ten tokens")),
        Act::json(completion("ten tokens")),
        Act::json(long),
        Act::json(completion("ten tokens")),
    ];
    let provider = Provider::new(acts).await;
    let text = free(&provider, &key("ann", "limits = { tpm = 150 }"));
    let gateway = Gateway::start(&text).await;
    // Each may come to some ninety tokens: two at once do not fit.
    let body = question(70);
    let first = client::open(
        gateway.address,
        "/chat/completions",
        "sk-ann",
        streamed(&body),
    )
    .await;
    assert_eq!(first.status, 200);
    assert_eq!(asks(&gateway, "ann", body.clone()).await.status, 429);
    go.send(()).unwrap();
    assert!(first.rest().await.1);
    // It came to about thirty, of which the provider told nothing; then ten, and ten.
    for _ in 0..2 {
        assert_eq!(asks(&gateway, "ann", body.clone()).await.status, 200);
    }
    // More than it was let in for: that is owed.
    let more = question(60);
    let answer = asks(&gateway, "ann", more.clone()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let refused = asks(&gateway, "ann", question(1)).await;
    assert_eq!(refused.status, 429);
    assert_eq!(provider.count(), 4);
}

#[tokio::test]
async fn a_request_larger_than_the_limit_takes_all_of_it_and_is_served() {
    let provider = answering().await;
    let text = free(&provider, &key("ann", "limits = { tpm = 30 }"));
    let gateway = Gateway::start(&text).await;
    assert_eq!(asks(&gateway, "ann", question(100_000)).await.status, 200);
    assert_eq!(
        asks(&gateway, "ann", question(100_000)).await.status,
        429,
        "ten were used"
    );
}

#[tokio::test]
async fn a_team_shares_its_limits_and_defaults_are_each_keys_own() {
    let provider = answering().await;
    let more = key("ann", "team = \"t\"") + &key("bob", "") + &key("eve", "limits = { rpm = 3 }");
    let team =
        "[teams.t]\nmembers = [\"bob\"]\nlimits = { rpm = 3 }\n[defaults]\nlimits = { rpm = 2 }\n";
    let gateway = Gateway::start(&free(&provider, &(more + team))).await;
    assert_eq!(status(&gateway, "ann").await, 200);
    assert_eq!(status(&gateway, "bob").await, 200);
    assert_eq!(status(&gateway, "ann").await, 200);
    assert_eq!(status(&gateway, "ann").await, 429, "a default of two");
    let refused = asks(&gateway, "bob", question(1)).await;
    assert!(
        refused.text().contains("team t is at its limit of 3"),
        "{}",
        refused.text()
    );
    for _ in 0..3 {
        assert_eq!(status(&gateway, "eve").await, 200, "its own");
    }
    assert_eq!(status(&gateway, "eve").await, 429);
}

/// Its limits are a target's, by whatever model it is asked for.
#[tokio::test]
async fn a_target_at_its_limit_is_passed_over() {
    let (one, two) = (answering().await, answering().await);
    let models = "[models.fast]\ntargets = [{ to = \"p/m\", limits = { rpm = 2 } }, { to = \"q/m\", limits = { rpm = 1 } }]\n[models.other]\ntargets = [\"p/m\"]\n";
    let text = of("p", &one, "") + &of("q", &two, "") + models + &key("ann", "");
    let gateway = Gateway::start(&text).await;
    let other = question(1).replace("fast", "other");
    assert_eq!(asks(&gateway, "ann", other.clone()).await.status, 200);
    let targets = ["p/m", "q/m"];
    for target in targets {
        let answer = asks(&gateway, "ann", question(1)).await;
        assert_eq!(answer.header("x-tollgate-target"), Some(target));
        assert_eq!(
            answer.header("x-tollgate-tries"),
            Some("1"),
            "passed over, not failed"
        );
    }
    let refused = asks(&gateway, "ann", question(1)).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code()),
        (429, "rate_limit_exceeded".into())
    );
    let text = refused.text();
    assert!(
        text.contains("p/m was not asked: it is at its limit of 2 requests a minute (rpm)"),
        "{text}"
    );
    let wait: u64 = refused.header("retry-after-ms").unwrap().parse().unwrap();
    assert!((40_000..=60_000).contains(&wait), "{wait}");
    for body in [other, question(1).replace("fast", "p/m")] {
        assert_eq!(asks(&gateway, "ann", body).await.status, 429);
    }
    assert_eq!((one.count(), two.count()), (2, 1));
}

#[tokio::test]
async fn a_target_has_its_slots_and_tokens_back_when_its_answer_ends() {
    let (go, told) = tokio::sync::watch::channel(());
    let rest = vec![FINISH.into(), DONE.into()];
    let provider = Provider::new([Act::Gated(vec![delta("a")], told, rest)]).await;
    let limits = "limits = { concurrency = 1, tpm = 200 }";
    let target = format!("{{ to = \"p/m\", {limits}, queue = {{ most = 0 }} }}");
    let models = format!("[models.fast]\ntargets = [{target}]\n");
    let gateway = Gateway::start(&[of("p", &provider, ""), models, key("ann", "")].concat()).await;
    let first = opens(&gateway, "ann").await;
    let refused = asks(&gateway, "ann", question(1)).await;
    assert!(
        refused.text().contains("has 1 requests under way"),
        "{}",
        refused.text()
    );
    drop(first);
    until("the first has left", || gateway.in_flight() == 0).await;
    go.send(()).unwrap();
    for _ in 0..3 {
        let body = streamed(&question(100));
        assert_eq!(asks(&gateway, "ann", body).await.status, 200);
    }
}

#[tokio::test]
async fn a_day_begins_at_midnight_and_survives_a_restart() {
    let provider = answering().await;
    let text = free(&provider, &key("ann", "limits = { rpd = 3 }"));
    let noon = 1_709_208_000;
    let hands = Hands::at(noon);
    let gateway = Gateway::by(&hands, "", &text).await;
    for _ in 0..3 {
        assert_eq!(status(&gateway, "ann").await, 200);
    }
    let refused = asks(&gateway, "ann", question(1)).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code()),
        (429, "rate_limit_exceeded".into())
    );
    let midnight = 86_400 - noon % 86_400;
    let (hours, minutes) = (midnight / 3_600, midnight / 60 % 60);
    let want = format!(
        "key ann is at its limit of 3 requests a day (rpd); there is room in {hours}h{minutes}m0s"
    );
    assert!(refused.text().contains(&want), "{}", refused.text());
    assert_eq!(
        refused.header("retry-after"),
        Some(midnight.to_string().as_str())
    );
    // A clock that goes back opens nothing.
    hands.move_to(noon - 86_400);
    assert_eq!(status(&gateway, "ann").await, 429);
    hands.move_to(noon + midnight);
    assert_eq!(status(&gateway, "ann").await, 200);
    drop(gateway);

    let gateway = Gateway::start(&text).await;
    assert_eq!(status(&gateway, "ann").await, 200);
    let gateway = gateway.restart(&text, |_| {}).await;
    for _ in 0..2 {
        assert_eq!(status(&gateway, "ann").await, 200);
    }
    assert_eq!(status(&gateway, "ann").await, 429, "one was before");
}

#[tokio::test]
async fn a_changed_limit_does_not_refill() {
    let provider = answering().await;
    let with = |limits: &str| free(&provider, &key("ann", &format!("limits = {{ {limits} }}")));
    let gateway = Gateway::start(&with("rpm = 4, rpd = 50")).await;
    for _ in 0..4 {
        assert_eq!(status(&gateway, "ann").await, 200);
    }
    gateway.apply(&with("rpm = 5, rpd = 50")).unwrap();
    assert_eq!(status(&gateway, "ann").await, 200);
    assert_eq!(status(&gateway, "ann").await, 429);
    gateway.apply(&with("rpm = 2, rpd = 50")).unwrap();
    assert_eq!(status(&gateway, "ann").await, 429);
    gateway.apply(&with("rpd = 6")).unwrap();
    assert_eq!(status(&gateway, "ann").await, 200);
    assert_eq!(status(&gateway, "ann").await, 429);
}

/// Every endpoint goes through the same admission.
#[tokio::test]
async fn every_endpoint_that_asks_a_provider_is_limited() {
    let provider = answering().await;
    let gateway = Gateway::start(&free(
        &provider,
        &key("ann", "limits = { rpm = 2, concurrency = 2 }"),
    ))
    .await;
    let body = r#"{"model":"fast","max_tokens":10,"prompt":"h","input":"h","messages":[{"role":"user","content":"h"}]}"#;
    for (path, want) in [
        ("/chat/completions", 200),
        ("/completions", 200),
        ("/embeddings", 429),
        ("/chat/completions", 429),
        ("/completions", 429),
    ] {
        let answer = asks_at(&gateway, path, "ann", body).await;
        assert_eq!(answer.status.as_u16(), want, "{path}");
    }
    assert_eq!(provider.count(), 2);
}

#[tokio::test]
async fn limits_that_mean_nothing_are_named() {
    let provider = answering().await;
    let text = "[models.fast]\ntargets = [{ to = \"p/m\", limits = { rpm = 0 } }]\n[models.slow]\ntargets = [{ to = \"p/m\", limits = { rpm = 1 } }, { to = \"p/m\", limits = { rpm = 2 } }]\n[keys.ann]\nkey = \"a\"\nteam = \"t\"\nlimits = { tpm = -1, rps = 2 }\n[teams.t]\nlimits = { concurrency = 0.5 }\n[teams.u]\nmembers = [\"ann\", \"later\"]\n";
    let text = of("p", &provider, "") + text;
    let Err(flaws) = crate::support::gateway::load(
        &tempfile::tempdir().unwrap(),
        "listen = \"127.0.0.1:0\"",
        &text,
    )
    .map(|it| it.compile()) else {
        panic!("it was taken");
    };
    let told = flaws.0.join("\n");
    for want in [
        "models.fast.targets[0].limits.rpm: 0 is no limit",
        "keys.ann.limits.tpm:",
        "keys.ann.limits.rps: `rps` is unknown; did you mean `rpd`?",
        "teams.t.limits.concurrency:",
    ] {
        assert!(told.contains(want), "{want} in\n{told}");
    }
    let sound = text
        .replace("rpm = 0", "rpm = 1")
        .replace("tpm = -1, rps = 2", "")
        .replace("concurrency = 0.5", "");
    let loaded = crate::support::gateway::load(
        &tempfile::tempdir().unwrap(),
        "listen = \"127.0.0.1:0\"",
        &sound,
    );
    let Err(flaws) = loaded.unwrap_or_else(|flaws| panic!("{flaws}")).compile() else {
        panic!("it was taken");
    };
    let told = flaws.0.join("\n");
    for want in [
        "models.slow.targets[1].limits: p/m has other limits elsewhere",
        "teams.u.members[0]: `ann` is in the team t already",
    ] {
        assert!(told.contains(want), "{want} in\n{told}");
    }
}

/// However many come at once.
#[tokio::test]
async fn many_at_once_are_held_to_every_limit() {
    let provider = Provider::new([Act::Stall(vec![delta("a")])]).await;
    let text = free(
        &provider,
        &(key(
            "ann",
            "team = \"t\"\nlimits = { concurrency = 6, rpm = 40 }",
        ) + &key("bob", "team = \"t\"")
            + "[teams.t]\nlimits = { concurrency = 9 }\n"),
    );
    let gateway = Gateway::start(&text).await;
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..60 {
        let (address, name) = (gateway.address, ["sk-ann", "sk-bob"][n % 2]);
        clients.spawn(async move {
            (
                name,
                client::open(address, "/chat/completions", name, streamed(&question(10))).await,
            )
        });
    }
    let all = clients.join_all().await;
    let open = |name: &str| {
        let mine = all
            .iter()
            .filter(|(whose, one)| *whose == name && one.status == StatusCode::OK);
        mine.count()
    };
    assert!(open("sk-ann") <= 6);
    assert_eq!(
        open("sk-ann") + open("sk-bob"),
        9,
        "as many as the team may"
    );
    assert_eq!(gateway.in_flight(), 9);
    assert_eq!(provider.count(), 9);
    drop(all);
    until("all have left", || gateway.in_flight() == 0).await;
    for _ in 0..3 {
        assert_eq!(opens(&gateway, "ann").await.status, 200);
        until("it has left", || gateway.in_flight() == 0).await;
    }
}

#[tokio::test]
async fn a_restart_refills_no_minute() {
    let provider = answering().await;
    let limits = "limits = { rpm = 3, tpm = 100 }";
    let more = key("ann", &format!("team = \"t\"\n{limits}")) + &key("bob", "team = \"t\"");
    let text = free(&provider, &(more + "[teams.t]\nlimits = { rpm = 4 }\n"));
    let gateway = Gateway::start(&text).await;
    for _ in 0..2 {
        assert_eq!(status(&gateway, "ann").await, 200);
    }
    let gateway = gateway.restart(&text, |_| {}).await;
    let third = asks(&gateway, "ann", question(10)).await;
    assert_eq!(third.status, 200);
    assert_eq!(third.header("x-ratelimit-remaining-requests"), Some("0"));
    // Three times ten tokens, of which the last is still counted as it may come to.
    let probable = question(10).len().div_ceil(4) + 10;
    let left = (100 - 20 - probable).to_string();
    assert_eq!(
        third.header("x-ratelimit-remaining-tokens"),
        Some(left.as_str())
    );
    assert_eq!(status(&gateway, "ann").await, 429);
    assert_eq!(status(&gateway, "bob").await, 200);
    assert_eq!(status(&gateway, "bob").await, 429, "the team's fifth");
}

/// Asks once more over a connection.
async fn asks_on(socket: &mut Socket, name: &str) -> client::Answer {
    let body = question(10);
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\napi-key: sk-{name}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write(head + &body).await;
    socket.answer().await
}

/// How fast that is, the bench `flood` measures.
#[tokio::test]
async fn a_flood_of_one_key_takes_nothing_from_another() {
    let provider = answering().await;
    let loud = key("loud", "limits = { rpm = 5, tpm = 1000, concurrency = 2 }");
    let quiet = key(
        "quiet",
        "limits = { rpm = 100, tpm = 100000, concurrency = 4 }",
    );
    let gateway = Gateway::start(&free(&provider, &(loud + &quiet))).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let (address, is_over) = (gateway.address, Arc::clone(&is_over));
        clients.spawn(async move {
            let mut socket = Socket::to(address).await;
            let (mut sent, mut passed) = (0, 0);
            while sent < 200 || !is_over.load(Ordering::Relaxed) {
                match asks_on(&mut socket, "loud").await.status.as_u16() {
                    200 => passed += 1,
                    status => assert_eq!(status, 429),
                }
                sent += 1;
            }
            passed
        });
    }
    let limited = r#"tollgate_rejections_total{code="rate_limit_exceeded"}"#;
    until("it floods", || gateway.metric(limited) > 100.0).await;
    let mut socket = Socket::to(gateway.address).await;
    for left in (0..100).rev() {
        let answer = asks_on(&mut socket, "quiet").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let told = answer.header("x-ratelimit-remaining-requests");
        assert_eq!(
            told,
            Some(left.to_string().as_str()),
            "its own, and no more"
        );
    }
    is_over.store(true, Ordering::Relaxed);
    let passed: usize = clients.join_all().await.into_iter().sum();
    assert_eq!(passed, 5, "who floods has what it may, too");
    assert_eq!(provider.count(), 105);
}

/// A request for pictures.
fn pictures(n: u32) -> String {
    format!(r#"{{"model":"fast","prompt":"a fish","n":{n}}}"#)
}

async fn paints(gateway: &Gateway, name: &str, n: u32) -> client::Answer {
    asks_at(gateway, "/images/generations", name, pictures(n)).await
}

async fn painting() -> Provider {
    Provider::new([Act::json(
        r#"{"created":1,"data":[{"b64_json":"iVBORw0KGgo="}]}"#,
    )])
    .await
}

/// What `GET /v1/usage` says of a limit: how much of it is left.
async fn left(gateway: &Gateway, name: &str, scope: &str, limit: &str) -> u64 {
    let key = format!("sk-{name}");
    let told = client::get(gateway.address, "/usage", &key).await.json();
    let mut limits = told["limits"].as_array().unwrap().iter();
    let found = limits.find(|it| it["scope"] == scope && it["limit"] == limit);
    found.unwrap_or_else(|| panic!("{limit} in {told}"))["left"]
        .as_u64()
        .unwrap()
}

#[tokio::test]
async fn pictures_have_a_limit_and_who_is_refused_for_it_has_consumed_nothing() {
    let provider = painting().await;
    let limits = "limits = { rpm = 9, tpm = 100000, rpd = 90, per_minute = { images = 3 } }";
    let ann = key("ann", &format!("{limits}\n{}", strict("1")));
    let price = fast("price = { images = 0.01 }");
    let gateway = Gateway::start(&[of("p", &provider, ""), price, ann].concat()).await;
    let first = paints(&gateway, "ann", 2).await;
    assert_eq!(first.status, 200, "{}", first.text());
    let names = first
        .headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-ratelimit-"));
    assert_eq!(
        names.count(),
        6,
        "of requests and of tokens: clients know no others"
    );
    let standing = async || {
        let told = client::get(gateway.address, "/usage", "sk-ann")
            .await
            .json();
        let budget = &told["budgets"][0];
        let money = ["spent_usd", "held_usd"].map(|it| budget[it].to_string());
        let mut all = Vec::new();
        for limit in ["rpm", "tpm", "rpd", "per_minute.images"] {
            all.push(left(&gateway, "ann", "key", limit).await);
        }
        (money, all)
    };
    let before = standing().await;
    assert_eq!((before.1[0], before.1[2], before.1[3]), (8, 89, 1));
    for _ in 0..4 {
        let refused = paints(&gateway, "ann", 2).await;
        assert_eq!(
            (refused.status.as_u16(), refused.code()),
            (429, "rate_limit_exceeded".into())
        );
        let text = refused.text();
        assert!(
            text.contains("key ann is at its limit of 3 images a minute (per_minute.images); there is room in "),
            "{text}"
        );
        let wait: u64 = refused.header("retry-after-ms").unwrap().parse().unwrap();
        assert!((50_000..=60_000).contains(&wait), "{wait}");
        assert_eq!(refused.header("x-ratelimit-limit-images"), None);
    }
    assert_eq!(standing().await, before);
    // One more fits.
    assert_eq!(paints(&gateway, "ann", 1).await.status, 200);
    let line = r#"tollgate_limit_remaining{key="ann",limit="per_minute.images"} 0"#;
    assert!(gateway.metrics().contains(line), "{}", gateway.metrics());
    assert_eq!(provider.count(), 2);
}

#[tokio::test]
async fn who_is_refused_for_money_or_requests_has_consumed_no_picture() {
    let provider = painting().await;
    let limits = "limits = { per_minute = { images = 4 } }";
    let poor = key("poor", &format!("{limits}\n{}", strict("\"0.03\"")));
    let busy = key("busy", "limits = { rpm = 1, per_minute = { images = 4 } }");
    let price = fast("price = { images = 0.01 }");
    let gateway = Gateway::start(&[of("p", &provider, ""), price, poor, busy].concat()).await;
    for _ in 0..3 {
        assert_eq!(paints(&gateway, "poor", 4).await.code(), "budget_exceeded");
    }
    assert_eq!(left(&gateway, "poor", "key", "per_minute.images").await, 4);
    assert_eq!(paints(&gateway, "poor", 3).await.status, 200);
    assert_eq!(paints(&gateway, "busy", 1).await.status, 200);
    for _ in 0..3 {
        let refused = paints(&gateway, "busy", 1).await;
        assert!(
            refused.text().contains("1 requests a minute (rpm)"),
            "{}",
            refused.text()
        );
    }
    assert_eq!(left(&gateway, "busy", "key", "per_minute.images").await, 3);
}

/// As Unicode counts them, and not by bytes.
#[tokio::test]
async fn speech_is_limited_by_its_characters() {
    let kind = vec![("content-type", "audio/mpeg".to_owned())];
    let sound = Act::Answer(200, kind, b"ID3 hm".to_vec());
    let provider = Provider::new([sound.clone(), sound, Act::json(completion("hello"))]).await;
    let text = free(
        &provider,
        &key("ann", "limits = { per_minute = { characters = 100 } }"),
    );
    let gateway = Gateway::start(&text).await;
    let speaks = async |n: usize| {
        let body = format!(
            r#"{{"model":"fast","voice":"alloy","input":"{}"}}"#,
            "é".repeat(n)
        );
        asks_at(&gateway, "/audio/speech", "ann", body).await
    };
    assert_eq!(speaks(60).await.status, 200);
    let refused = speaks(41).await;
    assert_eq!(refused.status, 429);
    assert!(
        refused
            .text()
            .contains("100 characters a minute (per_minute.characters)"),
        "{}",
        refused.text()
    );
    assert_eq!(speaks(40).await.status, 200);
    assert_eq!(status(&gateway, "ann").await, 200, "a chat speaks nothing");
    assert_eq!(speaks(1).await.status, 429);
}

/// Sends a file of so many bytes to be heard.
async fn hears(gateway: &Gateway, name: &str, bytes: usize) -> client::Answer {
    let body = format!(
        "--b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nfast\r\n--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n{}\r\n--b--\r\n",
        "x".repeat(bytes)
    );
    let bearer = format!("Bearer sk-{name}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "multipart/form-data; boundary=b"),
    ];
    let path = "/audio/transcriptions";
    client::whole(client::send(gateway.address, http::Method::POST, path, &headers, body).await)
        .await
}

#[tokio::test]
async fn sound_is_guessed_by_its_length_and_corrected_by_what_is_told() {
    let acts = [
        r#"{"text":"hm","usage":{"type":"duration","seconds":1}}"#,
        r#"{"text":"hm","usage":{"type":"tokens","input_tokens":7,"output_tokens":3,"total_tokens":10}}"#,
        r#"{"text":"hm","usage":{"type":"duration","seconds":100}}"#,
    ];
    let provider = Provider::new(acts.map(Act::json)).await;
    let text = free(
        &provider,
        &key("ann", "limits = { per_minute = { seconds = 30 } }"),
    );
    let gateway = Gateway::start(&text).await;
    let seconds = async || left(&gateway, "ann", "key", "per_minute.seconds").await;
    // Twenty, or 21 with what is around it.
    assert_eq!(hears(&gateway, "ann", 80_000).await.status, 200);
    assert_eq!(seconds().await, 29, "as it was told");
    assert_eq!(hears(&gateway, "ann", 80_000).await.status, 200);
    assert_eq!(seconds().await, 8, "nothing was told of seconds");
    assert_eq!(hears(&gateway, "ann", 80_000).await.status, 429);
    assert_eq!(hears(&gateway, "ann", 10).await.status, 200);
    let refused = hears(&gateway, "ann", 10).await;
    assert!(
        refused
            .text()
            .contains("30 seconds a minute (per_minute.seconds)"),
        "a hundred were used: {}",
        refused.text()
    );
}

#[tokio::test]
async fn searches_count_where_an_answer_says_nothing_of_them() {
    let answer = r#"{"results":[{"index":0,"relevance_score":0.5}],"usage":{"total_tokens":9}}"#;
    let provider = Provider::new([Act::json(answer)]).await;
    let text = free(
        &provider,
        &key("ann", "limits = { per_minute = { searches = 2 } }"),
    );
    let gateway = Gateway::start(&text).await;
    let body = r#"{"model":"fast","query":"q","documents":["a","b"]}"#;
    for want in [200, 200, 429] {
        let answer = asks_at(&gateway, "/rerank", "ann", body).await;
        assert_eq!(answer.status.as_u16(), want, "{}", answer.text());
    }
}

#[tokio::test]
async fn a_target_at_its_limit_of_pictures_is_passed_over() {
    let (one, two) = (painting().await, painting().await);
    let models = "[models.fast]\ntargets = [{ to = \"p/m\", limits = { per_minute = { images = 3 } } }, { to = \"q/m\", limits = { per_minute = { images = 2 } } }]\n";
    let text = of("p", &one, "") + &of("q", &two, "") + models + &key("ann", "");
    let gateway = Gateway::start(&text).await;
    for target in ["p/m", "q/m"] {
        let answer = paints(&gateway, "ann", 2).await;
        assert_eq!(answer.header("x-tollgate-target"), Some(target));
        assert_eq!(
            answer.header("x-tollgate-tries"),
            Some("1"),
            "passed over, not failed"
        );
    }
    let refused = paints(&gateway, "ann", 2).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code()),
        (429, "rate_limit_exceeded".into())
    );
    let text = refused.text();
    assert!(
        text.contains(
            "p/m was not asked: it is at its limit of 3 images a minute (per_minute.images)"
        ),
        "{text}"
    );
    let answer = paints(&gateway, "ann", 1).await;
    assert_eq!(
        answer.header("x-tollgate-target"),
        Some("p/m"),
        "one is left there"
    );
    let answer = asks(&gateway, "ann", question(1)).await;
    assert_eq!(
        answer.header("x-tollgate-target"),
        Some("p/m"),
        "a chat takes none"
    );
}

#[tokio::test]
async fn pictures_of_a_team_are_shared_and_a_restart_refills_none() {
    let provider = painting().await;
    let more = key("ann", "team = \"t\"")
        + &key(
            "bob",
            "team = \"t\"\nlimits = { rpm = 9, per_minute = { seconds = 5 } }",
        );
    let teams = "[teams.t]\nlimits = { per_minute = { images = 5 } }\n[defaults]\nlimits = { per_minute = { images = 4 } }\n";
    let text = free(&provider, &(more + teams));
    let gateway = Gateway::start(&text).await;
    assert_eq!(paints(&gateway, "ann", 3).await.status, 200);
    let gateway = gateway.restart(&text, |_| {}).await;
    let refused = paints(&gateway, "ann", 2).await;
    assert!(
        refused
            .text()
            .contains("key ann is at its limit of 4 images"),
        "{}",
        refused.text()
    );
    let refused = paints(&gateway, "bob", 3).await;
    assert!(
        refused
            .text()
            .contains("team t is at its limit of 5 images"),
        "{}",
        refused.text()
    );
    assert_eq!(
        left(&gateway, "bob", "key", "per_minute.images").await,
        4,
        "each by each"
    );
    assert_eq!(paints(&gateway, "bob", 2).await.status, 200);
    // A target that says no has made none.
    let failing = Provider::new([Act::status(500, "{}")]).await;
    let gateway = Gateway::start(&free(
        &failing,
        &key("ann", "limits = { per_minute = { images = 4 } }"),
    ))
    .await;
    assert!(paints(&gateway, "ann", 3).await.status.is_server_error());
    assert_eq!(left(&gateway, "ann", "key", "per_minute.images").await, 4);
}

/// A second target is asked beside the first: both may make pictures.
#[tokio::test]
async fn pictures_of_both_tries_count() {
    let (slow, quick) = (Provider::new([Act::Hang]).await, painting().await);
    let models = "[models.fast]\nhedge = { after = \"100ms\", at_most = 1 }\ntargets = [\"p/m\", { to = \"q/m\", limits = { per_minute = { images = 5 } } }]\n";
    let ann = key("ann", "limits = { per_minute = { images = 10 } }");
    let text = of("p", &slow, "") + &of("q", &quick, "") + models + &ann;
    let gateway = Gateway::start(&text).await;
    let answer = paints(&gateway, "ann", 2).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("x-tollgate-target")),
        (200, Some("q/m"))
    );
    assert_eq!(left(&gateway, "ann", "key", "per_minute.images").await, 6);
}

#[tokio::test]
async fn units_that_mean_nothing_are_named() {
    let provider = answering().await;
    let text = free(
        &provider,
        "[keys.ann]\nkey = \"a\"\nlimits = { per_minute = { images = 0, seccnds = 2 } }\n[teams.t]\nlimits = { per_minute = { pictures = 3 } }\n[defaults]\nlimits = { images = 3 }\n",
    );
    let folder = tempfile::tempdir().unwrap();
    let Err(flaws) = crate::support::gateway::load(&folder, "listen = \"127.0.0.1:0\"", &text)
        .map(|it| it.compile())
    else {
        panic!("it was taken");
    };
    let told = flaws.0.join("\n");
    for want in [
        "keys.ann.limits.per_minute.images: 0 is no limit; write a number from 1",
        "keys.ann.limits.per_minute.seccnds: `seccnds` is unknown; did you mean `seconds`?",
        "teams.t.limits.per_minute.pictures: `pictures` is unknown; there are characters, seconds, images and searches",
        "defaults.limits.images: `images` is unknown; there are rpm, tpm, rpd, concurrency and per_minute",
    ] {
        assert!(told.contains(want), "{want} in\n{told}");
    }
}
