//! Who answers by which name, and in which order are they asked?

use std::time::Duration;

use serde::Deserialize;

use super::{Limits, Rules, money, value};

/// `[models.NAME]`: a name that clients use.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// What it is for; asked for anything else, it is not asked.
    pub kind: Option<Kind>,
    /// In which order targets are asked.
    #[serde(default)]
    pub strategy: Strategy,
    /// By what requests belong together, with `sticky`: the first of these that a request has.
    #[serde(default = "StickyBy::usual")]
    pub sticky_by: Vec<StickyBy>,
    /// Who may serve it.
    pub targets: Vec<Target>,
    /// A second target is asked, too, where the first takes too long.
    pub hedge: Option<Hedge>,
    /// From the request's arrival to the first content, over all tries and pauses.
    #[serde(default = "Model::deadline", deserialize_with = "value::duration")]
    pub deadline: Duration,
    /// The model that is asked instead where the request is too long.
    pub on_context_overflow: Option<String>,
    /// The model that is asked instead where a provider does not answer such a thing.
    pub on_content_filter: Option<String>,
    /// The model that is asked instead where what is left to spend does not suffice.
    pub on_budget: Option<String>,
    /// As under a provider, applied before the provider's own.
    #[serde(default)]
    pub rules: Rules,
}

impl Model {
    /// The models that are asked instead, by the names of the fields that say so.
    pub fn instead(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let each = [
            ("on_context_overflow", self.on_context_overflow.as_deref()),
            ("on_content_filter", self.on_content_filter.as_deref()),
            ("on_budget", self.on_budget.as_deref()),
        ];
        let named = each.into_iter();
        named.filter_map(|(field, name)| Some((field, name?)))
    }

    /// The deadline of a model that names none, and of `provider/model` requests.
    pub fn deadline() -> Duration {
        Duration::from_secs(300)
    }
}

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Chats, completions and responses.
    Chat,
    /// Embeddings.
    Embedding,
    /// Speech.
    Speech,
    /// Transcriptions and translations.
    Transcription,
    /// Pictures.
    Image,
    /// Moderations.
    Moderation,
    /// Documents, sorted.
    Rerank,
}

/// When a second target is asked beside the first.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hedge {
    /// How long the first content of the first may take.
    #[serde(default)]
    pub after: After,
    /// So many of the model's requests may have a second one, as a part of a whole.
    #[serde(default = "Hedge::at_most")]
    pub at_most: money::Written,
}

/// How late is late.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum After {
    /// Later than so many of a hundred of the target's answers of late: `p95`, `p99.9`. In thousandths of a whole.
    Percentile(u32),
    /// After so long.
    Fixed(Duration),
}

impl Default for After {
    fn default() -> Self {
        Self::Percentile(950)
    }
}

/// In which order a model's targets are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// As they are written.
    #[default]
    Order,
    /// By chance, as often as their weights say.
    Weight,
    /// The one whose first content comes soonest, of two that chance names.
    Latency,
    /// The one with the fewest requests under way.
    LeastBusy,
    /// The cheapest for the very request.
    Cost,
    /// The same one for the same conversation.
    Sticky,
}

/// By what requests belong together, where their model's strategy is `sticky`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StickyBy {
    /// A header: `header:x-session`.
    Header(String),
    /// The beginning of a conversation: its messages up to the first of the user's.
    Messages,
    /// The member of the same name.
    PromptCacheKey,
    /// The member of the same name.
    User,
}

/// One of a model's targets: `provider/model`, alone or with more to say about it.
#[derive(Debug, Default)]
pub struct Target {
    /// `provider/model`, split at the first slash.
    pub to: String,
    /// What its tokens cost; goes before every list of prices.
    pub price: Option<money::Price>,
    /// The longest prompt and output together, in tokens.
    pub context: Option<u64>,
    /// The longest output, in tokens.
    pub max_output: Option<u64>,
    /// It thinks before it answers, at a cost that shows only at the end.
    pub reasoning: Option<bool>,
    /// What its provider lets be done, whoever asks and by whatever model.
    pub limits: Option<Limits>,
    /// Its share of what its tier is asked, with the strategy `weight`; 0: only where nobody else of the tier can be asked.
    /// Default: 1.
    pub weight: Option<u32>,
    /// It is asked when no target of a lower tier can be. Default: 0.
    pub tier: u32,
    /// How many requests may be under way is found out by trying, instead of a `concurrency` that is fixed.
    pub adaptive: Option<Adaptive>,
    /// The line of requests that wait for one under way to end, where there is a limit on those.
    pub queue: Option<Queue>,
    /// It may take so long to answer while it loads the model: after a start, or when nobody has asked it for five minutes.
    /// One request at a time is sent to it until it has answered.
    pub load_timeout: Option<Duration>,
}

/// Between what numbers of requests under way the right one is sought.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Adaptive {
    /// At least.
    #[serde(deserialize_with = "value::waiting")]
    pub least: u64,
    /// At most.
    #[serde(deserialize_with = "value::waiting")]
    pub most: u64,
}

impl Default for Adaptive {
    fn default() -> Self {
        Self {
            least: 1,
            most: 128,
        }
    }
}

/// A line of requests.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// So many may wait. Zero: nobody waits.
    pub most: usize,
    /// So long each may wait.
    #[serde(deserialize_with = "value::duration")]
    pub wait: Duration,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            most: 16,
            wait: Duration::from_secs(10),
        }
    }
}
