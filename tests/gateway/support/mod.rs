//! What the chapters speak with: a gateway in process, providers that can do anything, a client that sees everything.

pub mod answers;
pub mod biller;
pub mod books;
pub mod client;
#[cfg(feature = "otlp")]
pub mod collector;
pub mod form;
pub mod frames;
pub mod gateway;
pub mod http2;
pub mod identity;
pub mod money;
pub mod provider;
pub mod proxy;
pub mod secure;
pub mod services;

pub use client::{Answer, post};
pub use gateway::{Gateway, Hands};
pub use identity::{Authority, Identity};
pub use provider::{Act, Provider};

/// Waits, up to five seconds, until something is so.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..500 {
        if is_so() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("five seconds passed before {what}");
}

/// `[providers.NAME]` at an address, with more lines of its own.
pub fn provider_at(name: &str, address: std::net::SocketAddr, more: &str) -> String {
    format!(
        "[providers.{name}]\npreset = \"openai-compatible\"\nbase_url = \"http://{address}/v1\"\napi_key = \"env:SOME_KEY\"\n{more}\n"
    )
}

/// `[models.NAME]` with its targets in order, and more lines of its own.
pub fn model(name: &str, targets: &[&str], more: &str) -> String {
    format!("[models.{name}]\ntargets = {targets:?}\n{more}\n")
}

/// A chat request for a model.
pub fn chat(model: &str) -> String {
    format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"hi"}}]}}"#)
}

/// A chat request for a stream.
pub fn chat_stream(model: &str) -> String {
    format!(r#"{{"model":"{model}","stream":true,"messages":[{{"role":"user","content":"hi"}}]}}"#)
}

/// A whole answer that says `text`.
pub fn completion(text: &str) -> String {
    format!(
        r#"{{"id":"c","object":"chat.completion","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}}}"#
    )
}

/// One event that says `text`.
pub fn delta(text: &str) -> String {
    format!(
        r#"data: {{"choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}]}}"#
    ) + "\n\n"
}

/// The event with the finish reason.
pub const FINISH: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
/// The event with the usage.
pub const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3,\"total_tokens\":10}}\n\n";
/// The end.
pub const DONE: &str = "data: [DONE]\n\n";

/// The endpoints that a provider is asked at, in either form of their paths.
pub const PATHS: [&str; 6] = [
    "/v1/chat/completions",
    "/chat/completions",
    "/v1/completions",
    "/completions",
    "/v1/embeddings",
    "/embeddings",
];

/// Where chat requests go.
pub const CHAT: &str = "/v1/chat/completions";

/// Posts a chat request as ann, and reads the whole answer.
pub async fn ask(gateway: &Gateway, body: impl Into<bytes::Bytes>) -> Answer {
    post(gateway.address, CHAT, "sk-ann", body).await
}
