//! Dedicated threads.

use std::pin::Pin;

use super::Outage;

/// Spawns threads apart from those that serve requests.
pub trait ThreadSpawner: Send + Sync {
    /// Runs `work` to completion on a thread of its own.
    fn spawn(&self, name: &'static str, work: Pin<Box<dyn Future<Output = ()> + Send>>) -> Result<(), Outage>;
}
