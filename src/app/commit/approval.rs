//! The approval of an act by a second person, in the write that carries out the act.

use crate::ports::{ReplayGuard, WriteSet};

/// The party of the ids of approvals among the ids that are used once.
pub(in crate::app) const APPROVAL_PARTY: &str = "admin approval";

/// A second person's approval, for the write that carries out the act.
#[derive(Clone, Debug)]
pub(in crate::app) struct Approval {
    /// The identity of the second person, for the audit record.
    pub(in crate::app) by: String,
    /// The ids that the write redeems: that of the approval, and that of the act. Of several
    /// approvals of one act, the others must not repeat it after it was reversed.
    pub(in crate::app) guards: [ReplayGuard; 2],
}

/// Returns whether a write redeems an approval and no other id that is used once.
pub(super) fn redeems_approval_only(write: &WriteSet) -> bool {
    !write.replay_guards.is_empty() && write.replay_guards.iter().all(|guard| guard.party == APPROVAL_PARTY)
}

/// Adds an approval to a write: the ids that it redeems, and the second person in the audit record.
pub(in crate::app) fn apply_approval(write: &mut WriteSet, approval: Option<Approval>) {
    let Some(Approval { by, guards }) = approval else { return };
    write.replay_guards.extend(guards);
    for record in &mut write.audit_records {
        record.approved_by = Some(by.clone());
    }
}
