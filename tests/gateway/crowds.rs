//! More of everything than there is room for: connections, requests, bodies. Each limit turns away what is too much,
//! says so where there is somebody to hear it, and lets in the next once there is room.

use std::time::Duration;

use crate::errors::complaint;
use crate::path::one;
use crate::support::client::Socket;
use crate::support::{Act, CHAT, Gateway, Provider, ask, chat, completion, until};

/// The head of a chat request whose body is so long.
fn head(length: usize) -> String {
    format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\napi-key: sk-ann\r\ncontent-length: {length}\r\n\r\n"
    )
}

#[tokio::test]
async fn bodies_together_take_so_much_and_no_more() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let server = "max_body = \"1MiB\"\nmax_body_memory = \"1MiB\"\nbody_timeout = \"5s\"";
    let gateway = Gateway::with(server, &one(&provider)).await;
    // Not what is announced counts, but what has come.
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let mut socket = Socket::to(gateway.address).await;
        socket.write(head(1 << 20)).await;
        socket.write(vec![b' '; 240 << 10]).await;
        waiting.push(socket);
    }
    until("all of it has come", || {
        gateway.body_memory() >= 4 * (240 << 10)
    })
    .await;
    assert_eq!(
        ask(&gateway, chat("fast")).await.status,
        200,
        "there is a little room"
    );
    let long = chat("fast").replace("hi", &"h".repeat(200 << 10));
    let answer = ask(&gateway, long.clone()).await;
    let message = complaint(&answer, 503, "overloaded");
    assert!(message.contains("1048576 bytes"), "{message}");
    assert_eq!(answer.header("x-should-retry"), Some("true"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    // One of those that were first is cut off as well, when it grows beyond what is left.
    let mut greedy = waiting.pop().unwrap();
    greedy.write(vec![b' '; 200 << 10]).await;
    complaint(&greedy.answer().await, 503, "overloaded");
    drop((waiting, greedy));
    until("there is room again", || gateway.body_memory() == 0).await;
    assert_eq!(ask(&gateway, long).await.status, 200);
    assert_eq!(provider.count(), 2);
}

#[tokio::test]
async fn a_body_is_held_until_its_answer_begins_and_then_given_back() {
    let provider = Provider::new([Act::Hang]).await;
    let gateway = Gateway::start(&one(&provider)).await;
    let mut socket = Socket::to(gateway.address).await;
    let body = chat("fast");
    socket.write(head(body.len()) + &body).await;
    until("it is asked", || provider.count() == 1).await;
    assert_eq!(gateway.body_memory(), body.len() as u64);
    drop(socket);
    until("it is given back", || gateway.body_memory() == 0).await;
}

#[tokio::test]
async fn connections_beyond_the_most_wait_and_are_served_when_others_go() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let gateway = Gateway::with("max_connections = 10", &one(&provider)).await;
    let mut first = Vec::new();
    for _ in 0..10 {
        first.push(Socket::to(gateway.address).await);
    }
    until("all are in", || {
        gateway.metric("tollgate_connections") == 10.0
    })
    .await;
    let mut next = Socket::to(gateway.address).await;
    let body = chat("fast");
    next.write(head(body.len()) + &body).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(provider.count(), 0, "there is no place for it");
    first.pop();
    assert_eq!(next.answer().await.text(), completion("x"));
    assert_eq!(gateway.metric("tollgate_connections"), 10.0);
}

#[tokio::test]
async fn bodies_that_trickle_are_waited_for_so_long_and_no_longer() {
    let provider = Provider::new([Act::json(completion("x"))]).await;
    let gateway = Gateway::with("body_timeout = \"400ms\"", &one(&provider)).await;
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut socket = Socket::to(gateway.address).await;
        socket.write(head(1000)).await;
        slow.push(socket);
    }
    for _ in 0..20 {
        for socket in &mut slow {
            socket.write(" ").await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(
        ask(&gateway, chat("fast")).await.status,
        200,
        "others are served meanwhile"
    );
    for mut socket in slow {
        complaint(&socket.answer().await, 408, "request_timeout");
    }
    until("nothing is held", || {
        gateway.in_flight() == 0 && gateway.body_memory() == 0
    })
    .await;
    assert_eq!(provider.count(), 1);
}
