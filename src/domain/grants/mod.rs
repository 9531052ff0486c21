//! Recorded grants: that an agent may act for a requester, what for, and until when; and who demands one.

pub mod break_glass;

use crate::domain::{
    authority::Authority,
    id::{ClientId, GrantId},
    requester::Requester,
    time::Timestamp,
};

/// The most grants of one requester to one agent that are not over, but for those for an emergency.
pub const MAX_GRANTS: u32 = 100;
/// The most of those for an emergency: however many others there are, there is room for one.
pub const MAX_BREAK_GLASS_GRANTS: u32 = 20;
/// All of one requester to one agent.
pub const MAX_TOTAL_GRANTS: u32 = MAX_GRANTS + MAX_BREAK_GLASS_GRANTS;

/// A recorded grant: this agent may act for this requester, until then. Never changed: another one has another id, and a
/// token names the one that it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its id.
    pub id: GrantId,
    /// For whom.
    pub requester: Requester,
    /// Who.
    pub agent: ClientId,
    /// What the requester consents to: a ceiling for whatever rests on the grant. Without it the grant says who may act and
    /// nothing of what may be done, so it is no consent.
    pub authority: Option<Authority>,
    /// Until when.
    pub expires: Timestamp,
    /// Who recorded it: `admin:ID`, `requester:ISSUER SUBJECT`.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Whether it is for an emergency: in place of what the requester would have to grant. See [`break_glass`](super::grants::break_glass).
    pub break_glass: bool,
}

impl Grant {
    /// How many of its kind there may be of one requester to one agent.
    #[must_use]
    pub fn max_count(&self) -> u32 {
        if self.break_glass { MAX_BREAK_GLASS_GRANTS } else { MAX_GRANTS }
    }

    /// Whether what is asked for may rest on it.
    #[must_use]
    pub fn covers(&self, wanted: &Authority) -> bool {
        self.authority.as_ref().is_none_or(|authority| wanted.is_subset_of(authority))
    }
}
