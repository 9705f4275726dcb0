//! Who asks, and what for? What every entry of a request says.

use std::sync::Arc;
use std::time::SystemTime;

/// Who asks, and what for: what every entry of a request says.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Our id of the request.
    pub request: Arc<str>,
    /// The endpoint's name.
    pub api: &'static str,
    /// The caller's name.
    pub key: Arc<str>,
    /// And its team's.
    pub team: Option<Arc<str>>,
    /// The label of the model that was asked for, whichever is asked instead.
    pub model: Arc<str>,
    /// How many tries were made before, at other models' targets.
    pub tries: u32,
    /// The length of the body, in bytes.
    pub length: u64,
    /// The most output that it may have, in tokens, where nobody who is asked has a budget.
    pub most: u64,
    /// The tokens that it will probably use.
    pub probable: u64,
    /// The tokens of input that it has at least.
    pub least: u64,
    /// When the hold was made: the windows of budgets that it counts in.
    pub at: SystemTime,
    /// For whom the caller asks, as it says.
    pub user: Option<Arc<str>>,
    /// To what it is charged further, as the caller says.
    pub tag: Option<Arc<str>>,
}
