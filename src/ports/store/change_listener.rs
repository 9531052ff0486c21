//! Change notifications.

use async_trait::async_trait;

use crate::ports::Outage;

/// A change that another process has committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notification {
    /// The revocation log has new entries.
    Log,
    /// A replica has acknowledged more of the log.
    Acknowledgement,
}

/// A subscription to changes. It may miss some, so it only reduces latency: correctness never
/// depends on it.
#[async_trait]
pub trait ChangeListener: Send {
    /// Waits for the next change. After an error the listener receives nothing more.
    async fn recv(&mut self) -> Result<Notification, Outage>;
}
