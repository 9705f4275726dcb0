//! Another configuration under load: each request sees one plan, nothing under way is lost, counters go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::path::one;
use crate::support::{
    Act, DONE, FINISH, Gateway, Provider, ask, chat, chat_stream, client, completion, delta, post,
    until,
};

#[tokio::test]
async fn a_reload_under_load_loses_nothing() {
    let (a, b) = (
        Provider::new([Act::json(completion("a"))]).await,
        Provider::new([Act::json(completion("b"))]).await,
    );
    let gateway = Arc::new(Gateway::start(&one(&a)).await);
    let (stop, answered) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (gateway, stop, answered) = (
            Arc::clone(&gateway),
            Arc::clone(&stop),
            Arc::clone(&answered),
        );
        load.spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let answer = ask(&gateway, chat("fast")).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                answered.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    for turn in 0..20 {
        let plan = if turn % 2 == 0 { one(&b) } else { one(&a) };
        gateway.apply(&plan).unwrap();
        let before = answered.load(Ordering::SeqCst);
        until("the load goes on", || {
            answered.load(Ordering::SeqCst) > before + 8
        })
        .await;
    }
    stop.store(true, Ordering::SeqCst);
    while let Some(ended) = load.join_next().await {
        ended.unwrap();
    }
    assert!(a.count() > 0 && b.count() > 0, "both were asked");
    let all = answered.load(Ordering::SeqCst);
    assert_eq!(
        a.count() + b.count(),
        all,
        "each was answered by one of them, once"
    );
    let line =
        r#"tollgate_requests_total{api="chat_completions",key="ann",model="fast",status="200"}"#;
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let all = all as f64;
    until("all are counted, over all plans", || {
        gateway.metric(line) == all
    })
    .await;
    assert_eq!(
        gateway.metric(r#"tollgate_reloads_total{outcome="applied"}"#),
        20.0
    );
    assert_eq!(gateway.in_flight(), 0);
}

#[tokio::test]
async fn a_stream_under_way_keeps_its_plan() {
    let provider = Provider::new([Act::events(
        (0..100)
            .map(|n| delta(&n.to_string()))
            .chain([FINISH.into(), DONE.into()]),
    )])
    .await;
    let gateway = Gateway::start(&one(&provider)).await;
    let mut coming = client::open(
        gateway.address,
        "/v1/chat/completions",
        "sk-ann",
        chat_stream("fast"),
    )
    .await;
    coming.piece().await.unwrap().unwrap();
    gateway.apply("[providers.echo]\n[models.other]\ntargets = [\"echo/x\"]\n[keys.bob]\nkey = \"sk-bob\"\n").unwrap();
    assert_eq!(gateway.in_flight(), 1, "it is still under way");
    let (rest, complete) = coming.rest().await;
    assert!(complete && String::from_utf8_lossy(&rest).ends_with(DONE));
    let refused = ask(&gateway, chat("fast")).await;
    assert_eq!(
        refused.code(),
        "invalid_api_key",
        "the new plan is in force"
    );
    assert_eq!(
        post(
            gateway.address,
            "/v1/chat/completions",
            "sk-bob",
            chat("other")
        )
        .await
        .status,
        200
    );
}

#[tokio::test]
async fn a_flawed_configuration_changes_nothing() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    for flawed in [
        "[models.x]\ntargets = [\"nobody/x\"]\n",
        "nonsense",
        "[keys.x]\nkey = \"env:UNSET\"\n",
    ] {
        assert!(gateway.apply(flawed).is_err(), "{flawed}");
        let answer = ask(&gateway, chat("fast")).await;
        assert_eq!(answer.status, 200);
    }
    // The second never got as far as a plan.
    assert_eq!(
        gateway.metric(r#"tollgate_reloads_total{outcome="refused"}"#),
        2.0
    );
}
