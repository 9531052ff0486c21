//! Counts for quotas.

use async_trait::async_trait;

use crate::{
    domain::{quota::QuotaKey, time::Timestamp},
    ports::Outage,
};

/// Counts what quotas limit.
#[async_trait]
pub trait QuotaStore: Send + Sync {
    /// Returns how much there is at `now`, but stops counting at `limit`.
    async fn count_usage(&self, key: &QuotaKey, now: Timestamp, limit: u32) -> Result<u32, Outage>;
}
