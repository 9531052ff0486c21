//! Timeout for store calls that have no other deadline.
//!
//! The store has timeouts of its own. A connection that silently drops packets, however, delivers
//! neither a response nor an error, and a caller without a deadline would wait for it forever.

use std::time::Duration;

use tokio::time::timeout;

use crate::ports::Outage;

/// The time limit of one store call: the sum of what the store itself allows for a connection and
/// for a statement.
pub(in crate::app) const STORE_CALL_TIMEOUT: Duration = Duration::from_secs(8);

/// Returns the result of `call`, or an [`Outage`] if the call takes longer than
/// [`STORE_CALL_TIMEOUT`]. An abandoned call may still take effect.
pub(in crate::app) async fn with_store_timeout<T, E: From<Outage>>(
    operation: &'static str,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match timeout(STORE_CALL_TIMEOUT, call).await {
        Ok(result) => result,
        Err(elapsed) => Err(Outage::during(operation)(elapsed).into()),
    }
}
