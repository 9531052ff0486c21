//! A limit on every call of the store that nobody else limits. The store has limits of its own; but a connection that
//! has gone silent, without a word that it is gone, answers nothing, and whoever waits for it waits for ever.

use std::time::Duration;

use tokio::time::timeout;

use crate::ports::Outage;

/// How long a call may take: as long as the store itself allows to get a connection and for a statement.
pub(in crate::app) const STORE_CALL_TIMEOUT: Duration = Duration::from_secs(8);

/// What the call answers, or an outage when it takes too long. What was given up may still happen.
pub(in crate::app) async fn with_store_timeout<T, E: From<Outage>>(
    during: &'static str,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match timeout(STORE_CALL_TIMEOUT, call).await {
        Ok(answer) => answer,
        Err(late) => Err(Outage::during(during)(late).into()),
    }
}
