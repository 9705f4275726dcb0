//! Prices, budgets and what the ledger says, for the chapters about money.

use rusqlite::Connection;

use super::{Answer, Gateway, Provider, post, until};

/// A tenth of a cent a token of input, a cent a token of output.
pub const PRICE: &str = "price = { input = 1000, output = 10000 }";

/// `[providers.NAME]` at a provider, with more lines of its own.
pub fn of(name: &str, provider: &Provider, more: &str) -> String {
    let address = provider.address;
    format!(
        "[providers.{name}]\npreset = \"openai-compatible\"\nbase_url = \"http://{address}/v1\"\ntries = 1\n{more}\n"
    )
}

/// `[keys.NAME]`, with more lines of its own.
pub fn key(name: &str, more: &str) -> String {
    format!("[keys.{name}]\nkey = \"sk-{name}\"\n{more}\n")
}

/// A budget for good, and nobody's output is lowered for it.
pub fn strict(usd: &str) -> String {
    format!("on_shortfall = \"refuse\"\n{}", budget(usd))
}

/// A budget for good.
pub fn budget(usd: &str) -> String {
    format!("budget = {{ usd = {usd}, per = \"total\" }}")
}

/// A short question, with a limit on its answer.
pub fn question(limit: u64) -> String {
    format!(
        r#"{{"model":"fast","max_tokens":{limit},"messages":[{{"role":"user","content":"h"}}]}}"#
    )
}

/// Asks as somebody.
pub async fn asks(gateway: &Gateway, name: &str, body: impl Into<bytes::Bytes>) -> Answer {
    asks_at(gateway, "/chat/completions", name, body).await
}

/// Asks as somebody, at any endpoint.
pub async fn asks_at(
    gateway: &Gateway,
    path: &str,
    name: &str,
    body: impl Into<bytes::Bytes>,
) -> Answer {
    post(gateway.address, path, &format!("sk-{name}"), body).await
}

/// One entry of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// How it ended.
    pub end: String,
    /// In billionths of a dollar.
    pub cost: Option<u64>,
    pub estimated: bool,
}

/// Every entry there is, once nothing waits to be written.
pub async fn entries(gateway: &Gateway) -> Vec<Row> {
    let db = written(gateway).await;
    let rows = "SELECT \"end\", cost, estimated FROM entry ORDER BY id";
    let mut rows = db.prepare(rows).unwrap();
    let rows = rows.query_map([], |row| {
        let cost: Option<i64> = row.get(1)?;
        Ok(Row {
            end: row.get(0)?,
            cost: cost.map(|cost| u64::try_from(cost).unwrap()),
            estimated: row.get(2)?,
        })
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// The ledger's file, once nothing is under way and nothing waits to be written.
async fn written(gateway: &Gateway) -> Connection {
    until("nothing is under way", || gateway.in_flight() == 0).await;
    let waiting = || gateway.metric("tollgate_ledger_queue");
    until("everything is written", || waiting() == 0.0).await;
    Connection::open(gateway.folder().join("tollgate.db")).unwrap()
}
