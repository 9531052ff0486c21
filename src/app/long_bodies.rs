//! Admission of long request bodies: how many a client may send at the same time.
//!
//! A long body takes memory and a connection while it arrives, and its parsing takes turns with
//! that of others. This limit keeps one client from taking all of that.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use crate::{
    app::{ConflictError, Service},
    domain::id::ClientId,
};

/// The long bodies of one client that are read or parsed at a time.
const MAX_PER_CLIENT: usize = 8;

/// Counts the long bodies that are in progress.
#[derive(Default)]
pub(in crate::app) struct LongBodies {
    in_progress: Arc<Mutex<HashMap<ClientId, usize>>>,
}

/// The permission to send one long body. Dropping it says that the body is parsed.
#[derive(Debug)]
pub struct LongBodyPermit {
    client: ClientId,
    in_progress: Arc<Mutex<HashMap<ClientId, usize>>>,
}

impl LongBodies {
    fn admit(&self, client: &ClientId) -> Result<LongBodyPermit, ConflictError> {
        let mut in_progress = self.in_progress.lock();
        let count = in_progress.entry(client.clone()).or_default();
        if *count >= MAX_PER_CLIENT {
            return Err(ConflictError::TooManyLongBodies(MAX_PER_CLIENT));
        }
        *count += 1;
        Ok(LongBodyPermit { client: client.clone(), in_progress: Arc::clone(&self.in_progress) })
    }
}

impl Drop for LongBodyPermit {
    fn drop(&mut self) {
        let mut in_progress = self.in_progress.lock();
        if let Some(count) = in_progress.get_mut(&self.client) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                in_progress.remove(&self.client);
            }
        }
    }
}

impl Service {
    /// Admits a long body of a client.
    pub fn admit_long_body(&self, client: &ClientId) -> Result<LongBodyPermit, ConflictError> {
        self.inner.long_bodies.admit(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_bodies_are_counted_per_client_and_released() {
        let bodies = LongBodies::default();
        let admit = |client: &str| bodies.admit(&client.parse().unwrap());
        let mut held = (0..MAX_PER_CLIENT).map(|_| admit("files").unwrap()).collect::<Vec<_>>();
        assert_eq!(admit("files").unwrap_err(), ConflictError::TooManyLongBodies(MAX_PER_CLIENT));
        let other = admit("notes").unwrap();
        held.pop();
        held.push(admit("files").unwrap());
        assert!(admit("files").is_err());
        drop((held, other));
        assert!(bodies.in_progress.lock().is_empty());
    }
}
