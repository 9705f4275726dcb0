//! Prices, budgets and what the ledger says, for the chapters about money.

use std::path::Path;

use super::books::{Books, Entry};
use super::{Answer, Gateway, Provider, post, provider_at};

/// A tenth of a cent a token of input, a cent a token of output.
pub const PRICE: &str = "price = { input = 1000, output = 10000 }";

/// What an answer with the sample usage costs at that: 7 tokens in, 3 out.
pub const COST: u64 = 37_000_000;

/// `[providers.NAME]` at a provider, which is asked once, with more lines of its own.
pub fn of(name: &str, provider: &Provider, more: &str) -> String {
    provider_at(name, provider.address, &format!("tries = 1\n{more}"))
}

/// `[models.fast]` with one target, for which these terms are written.
pub fn fast(terms: &str) -> String {
    format!("[models.fast]\ntargets = [{{ to = \"p/m\", {terms} }}]\n")
}

/// A gateway to one target at the price above, and what follows.
pub fn priced(provider: &Provider, more: &str) -> String {
    [of("p", provider, ""), fast(PRICE), more.to_owned()].concat()
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

/// What most want to know of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// How it ended.
    pub end: String,
    /// In billionths of a dollar.
    pub cost: Option<u64>,
    pub estimated: bool,
}

impl Row {
    pub fn new(end: &str, cost: impl Into<Option<u64>>, estimated: bool) -> Self {
        Self {
            end: end.to_owned(),
            cost: cost.into(),
            estimated,
        }
    }
}

impl From<Entry> for Row {
    fn from(entry: Entry) -> Self {
        Self::new(&entry.end, entry.cost, entry.estimated)
    }
}

/// The same for a stream.
pub fn streamed(body: &str) -> String {
    body.replace("{\"model\"", "{\"stream\":true,\"model\"")
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

fn short(books: &Books) -> Vec<Row> {
    books.rows().into_iter().map(Row::from).collect()
}

/// Every entry there is, once nothing is under way.
pub async fn entries(gateway: &Gateway) -> Vec<Row> {
    short(&Books::of(gateway).await)
}

/// What was entered by now, whatever is under way.
pub fn entered(gateway: &Gateway) -> Vec<Row> {
    short(&Books::so_far(gateway))
}

/// Every entry of a gateway that has ended.
pub fn entries_in(folder: &Path) -> Vec<Row> {
    short(&Books::open(folder))
}

/// What was spent by one owner, in billionths, once nothing is under way.
pub async fn spent(gateway: &Gateway, scope: u8, name: &str) -> u64 {
    Books::of(gateway).await.spent(scope, name).values().sum()
}

/// One column of every entry, once nothing is under way.
pub async fn column(gateway: &Gateway, name: &str) -> Vec<String> {
    Books::of(gateway).await.column(name)
}
