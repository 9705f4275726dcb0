//! A second hold for the same request: where two of its tries run side by side, each needs money of its own.

use std::sync::Arc;
use std::time::SystemTime;

use smallvec::SmallVec;

use super::inner::Inner;
use super::{Account, Hold, Refused};
use crate::usage::Money;

/// Of what another hold for the same request is made: its requests are counted already.
#[derive(Debug)]
pub struct Twin {
    pub(super) inner: Arc<Inner>,
    pub(super) accounts: SmallVec<[Account; 2]>,
}

impl Twin {
    /// Holds so much more, or nothing.
    pub async fn hold(&self, amount: Money, now: SystemTime) -> Result<Box<Hold>, Refused> {
        Hold::make(&self.inner, &self.accounts, amount, now).await
    }
}
