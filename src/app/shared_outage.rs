//! One failure that is returned to several callers.

use std::{error::Error, fmt, sync::Arc};

use crate::ports::Outage;

/// Returns an [`Outage`] of the caller's own with the operation and the causes of the shared one.
///
/// [`Outage`] is not `Clone`, because its cause is not. Wrapping the shared value in a second
/// `Outage` would add a level to the chain that repeats the first.
pub(in crate::app) fn unshare(shared: Arc<Outage>) -> Outage {
    // Callers recognize this cause by its type.
    if let Some(unknown) = shared.unknown_entry() {
        return Outage { operation: shared.operation, source: Box::new(unknown.clone()) };
    }
    if let Some(tampering) = shared.tampering() {
        return Outage { operation: shared.operation, source: Box::new(tampering.clone()) };
    }
    Outage { operation: shared.operation, source: Box::new(SharedCause { outage: shared }) }
}

/// The cause of a shared outage. Its text and its own cause are those of the original.
struct SharedCause {
    outage: Arc<Outage>,
}

impl fmt::Debug for SharedCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.outage.source, f)
    }
}

impl fmt::Display for SharedCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.outage.source, f)
    }
}

impl Error for SharedCause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.outage.source.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::ErrorChain;

    #[test]
    fn unshared_outage_keeps_operation_and_causes() {
        let root = std::io::Error::other("connection refused");
        let connect = Outage::during("connect")(root);
        let shared = Arc::new(Outage::during("read the log head")(connect));
        let chain = "read the log head failed: connect failed: connection refused";
        assert_eq!(ErrorChain(&*shared).to_string(), chain);
        assert_eq!(ErrorChain(&unshare(Arc::clone(&shared))).to_string(), chain);
        assert_eq!(unshare(shared).operation, "read the log head");
    }
}
