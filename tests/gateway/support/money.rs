//! Prices, budgets and what the ledger says, for the chapters about money.

use rusqlite::Connection;

use super::{Answer, Gateway, Provider, post, until};

/// A tenth of a cent a token of input, a cent a token of output.
pub const PRICE: &str = "price = { input = 1000, output = 10000 }";

/// What an answer with the sample usage costs at that: 7 tokens in, 3 out.
pub const COST: u64 = 37_000_000;

/// `[providers.NAME]` at a provider, with more lines of its own.
pub fn of(name: &str, provider: &Provider, more: &str) -> String {
    let address = provider.address;
    format!(
        "[providers.{name}]\npreset = \"openai-compatible\"\nbase_url = \"http://{address}/v1\"\ntries = 1\n{more}\n"
    )
}

/// A gateway to one target at the price above, and what follows.
pub fn priced(provider: &Provider, more: &str) -> String {
    of("p", provider, "")
        + &format!("[models.fast]\ntargets = [{{ to = \"p/m\", {PRICE} }}]\n{more}")
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

impl Row {
    pub fn new(end: &str, cost: u64, estimated: bool) -> Self {
        Self {
            end: end.to_owned(),
            cost: Some(cost),
            estimated,
        }
    }
}

/// What a request may cost at most at the price above, in billionths.
pub fn bound(body: &str, output: u64) -> u64 {
    // A token a byte, and a provider's template.
    (body.len() as u64 + 256) * 1_000_000 + output * 10_000_000
}

/// What it costs at the price above where nobody tells, in billionths.
pub fn estimate(body: &str, output: u64) -> u64 {
    (body.len() as u64).div_ceil(4) * 1_000_000 + output * 10_000_000
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

/// What was spent by one owner, in billionths, once nothing waits to be written.
pub async fn spent(gateway: &Gateway, scope: u8, name: &str) -> u64 {
    let db = written(gateway).await;
    let sum = "SELECT coalesce(sum(amount), 0) FROM spent WHERE scope = ? AND name = ?";
    let sum: i64 = db.query_row(sum, (scope, name), |row| row.get(0)).unwrap();
    u64::try_from(sum).unwrap()
}

/// One column of every entry.
pub async fn column(gateway: &Gateway, name: &str) -> Vec<String> {
    let db = written(gateway).await;
    let rows = format!("SELECT {name} FROM entry ORDER BY id");
    let mut rows = db.prepare(&rows).unwrap();
    let rows = rows.query_map([], |row| row.get(0));
    rows.unwrap().map(Result::unwrap).collect()
}

/// The ledger's file, once nothing is under way and all that was settled stands in it.
async fn written(gateway: &Gateway) -> Connection {
    until("nothing is under way", || gateway.in_flight() == 0).await;
    gateway.ledger()
}
