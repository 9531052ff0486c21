//! Admission of lists: how many lists a client may read at the same time.
//!
//! Lists have connections of their own, and this limit keeps one client from occupying all of them.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use crate::app::{ApiCaller, ConflictError, RequesterCaller, Service};

/// Counts the lists that are being read.
pub(in crate::app) struct ListAdmission {
    max_per_client: usize,
    in_progress: Arc<Mutex<HashMap<String, usize>>>,
}

/// The permission to read one list. Dropping it ends the list.
#[derive(Debug)]
pub struct ListPermit {
    caller: String,
    in_progress: Arc<Mutex<HashMap<String, usize>>>,
}

impl ListAdmission {
    pub(in crate::app) fn new(max_per_client: usize) -> Self {
        Self { max_per_client, in_progress: Arc::default() }
    }

    fn admit(&self, caller: String) -> Result<ListPermit, ConflictError> {
        let mut counts = self.in_progress.lock();
        let count = counts.entry(caller.clone()).or_default();
        if *count >= self.max_per_client {
            return Err(ConflictError::TooManyLists(self.max_per_client));
        }
        *count += 1;
        Ok(ListPermit { caller, in_progress: Arc::clone(&self.in_progress) })
    }
}

impl Drop for ListPermit {
    fn drop(&mut self) {
        let mut counts = self.in_progress.lock();
        if let Some(count) = counts.get_mut(&self.caller) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.caller);
            }
        }
    }
}

impl Service {
    /// Admits a list of a client, which lasts until the permit is dropped.
    pub fn admit_list(&self, caller: &ApiCaller) -> Result<ListPermit, ConflictError> {
        self.inner.list_admission.admit(format!("client:{}", caller.client().id()))
    }

    /// Admits a list of a requester, which lasts until the permit is dropped.
    pub fn admit_requester_list(&self, caller: &RequesterCaller) -> Result<ListPermit, ConflictError> {
        self.inner.list_admission.admit(caller.identity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_counted_per_client_and_released() {
        let admission = ListAdmission::new(2);
        let admit = |caller: &str| admission.admit(caller.to_owned());
        let first = admit("client:a").unwrap();
        let _second = admit("client:a").unwrap();
        assert_eq!(admit("client:a").unwrap_err(), ConflictError::TooManyLists(2));
        let other = admit("client:b").unwrap();
        drop(first);
        let _third = admit("client:a").unwrap();
        assert!(admit("client:a").is_err());
        drop(other);
        assert!(!admission.in_progress.lock().contains_key("client:b"), "a client without lists is forgotten");
    }
}
