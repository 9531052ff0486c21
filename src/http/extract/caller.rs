//! The client that sent a request, for the log and the metrics.

use std::sync::{Arc, OnceLock};

use crate::domain::id::ClientId;

/// Where an extractor leaves the client that it authenticated. Every request has one as an
/// extension.
#[derive(Clone, Debug, Default)]
pub(in crate::http) struct CallerSlot(Arc<OnceLock<ClientId>>);

impl CallerSlot {
    /// Returns the authenticated client.
    pub(in crate::http) fn client(&self) -> Option<&ClientId> {
        self.0.get()
    }
}

/// Notes the client that a request authenticated.
pub(in crate::http) fn note_client(slot: Option<&CallerSlot>, client: &ClientId) {
    if let Some(CallerSlot(slot)) = slot {
        // The first one stays; a request has one client.
        let _: Result<(), ClientId> = slot.set(client.clone());
    }
}
