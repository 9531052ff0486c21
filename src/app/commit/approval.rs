//! The approval of an act by a second person, in the write that carries out the act.

use crate::ports::{ReplayGuard, WriteSet};

/// The party of the ids of approvals among the ids that are used once.
pub(in crate::app) const APPROVAL_PARTY: &str = "admin approval";

/// A second person's approval, for the write that carries out the act.
#[derive(Clone, Debug)]
pub(in crate::app) struct Approval {
    /// The identity of the second person, for the audit record.
    pub(in crate::app) by: String,
    /// The id that the write redeems.
    pub(in crate::app) guard: ReplayGuard,
}

/// Returns whether a write redeems an approval and no other id that is used once.
pub(super) fn redeems_approval_only(write: &WriteSet) -> bool {
    matches!(write.replay_guards.as_slice(), [guard] if guard.party == APPROVAL_PARTY)
}

/// Adds an approval to a write: the id that it redeems, and the second person in the audit record.
pub(in crate::app) fn apply_approval(write: &mut WriteSet, approval: Option<Approval>) {
    let Some(Approval { by, guard }) = approval else { return };
    write.replay_guards.push(guard);
    for record in &mut write.audit_records {
        record.approved_by = Some(by.clone());
    }
}
