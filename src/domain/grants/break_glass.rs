//! Break-glass: a grant that an admin makes for an emergency, in place of the one that the requester would have to make.
//!
//! It stands in for that grant, and for nothing else: the requester's evidence is needed as ever, and every ceiling holds,
//! the agent's, the requester's and the catalogue's. What was done with it is listed until somebody else signs it off.

use serde::{Deserialize, Serialize};

use crate::domain::{
    grants::Grant,
    id::Reason,
    settings::DEFAULT_BREAK_GLASS_LIFETIME,
    time::{Lifetime, Timestamp},
};

/// A grant for an emergency. It is kept when the grant is over or withdrawn, to be reviewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakGlassGrant {
    /// The grant. It always says what for.
    pub grant: Grant,
    /// What the emergency is.
    pub reason: Reason,
    /// Whether it was withdrawn.
    pub is_withdrawn: bool,
    /// Who signed off what was done with it.
    pub review: Option<Review>,
}

/// That what was done is signed off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Review {
    /// By whom: `admin:ID`.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// What they found.
    pub note: Reason,
}

/// Whether it is signed off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReviewState {
    /// Not yet.
    Open,
    /// It is.
    Done,
}

/// `[break_glass]`: how long such a grant lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakGlassLimits {
    /// At most, and where the admin does not say (seconds).
    pub max_lifetime: Lifetime,
}

impl Default for BreakGlassLimits {
    fn default() -> Self {
        Self { max_lifetime: DEFAULT_BREAK_GLASS_LIFETIME }
    }
}

/// Why a review is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// Who made it does not judge it.
    #[error("somebody else than who made it has to sign it off")]
    SelfReview,
    /// More may be done with it yet.
    #[error("it is still good: withdraw it, or wait until it is over")]
    StillValid,
    /// It was signed off before.
    #[error("it is signed off already")]
    AlreadyReviewed,
}

impl BreakGlassGrant {
    /// Whether this admin may sign it off now: somebody else than who made it, once, when nothing more can be done with it.
    pub fn check_review(&self, by: &str, now: Timestamp) -> Result<(), ReviewError> {
        if self.grant.by == by {
            Err(ReviewError::SelfReview)
        } else if self.review.is_some() {
            Err(ReviewError::AlreadyReviewed)
        } else if !self.is_withdrawn && !self.grant.expires.has_passed(now) {
            Err(ReviewError::StillValid)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{authority::Authority, id::GrantId, requester::Requester};

    fn break_glass_grant(review: bool, withdrawn: bool) -> BreakGlassGrant {
        let at = Timestamp::from_unix(1000);
        let requester =
            Requester { issuer: "https://login.example.com".parse().unwrap(), subject: "alice".parse().unwrap() };
        let grant = Grant {
            id: GrantId::new(uuid::Uuid::nil()),
            requester,
            agent: "planner".parse().unwrap(),
            authority: Some(Authority::default()),
            expires: Timestamp::from_unix(1900),
            by: "admin:ops".into(),
            at,
            break_glass: true,
        };
        let review = review.then(|| Review { by: "admin:eve".into(), at, note: "seen".parse().unwrap() });
        BreakGlassGrant { grant, reason: "on fire".parse().unwrap(), is_withdrawn: withdrawn, review }
    }

    #[test]
    fn review_by_creator_or_while_valid_or_twice_is_rejected() {
        for (by, now, reviewed, withdrawn, want) in [
            ("admin:boss", 1900, false, false, Ok(())),
            ("admin:boss", 1001, false, true, Ok(())),
            ("admin:boss", 1899, false, false, Err(ReviewError::StillValid)),
            ("admin:boss", 1900, true, false, Err(ReviewError::AlreadyReviewed)),
            ("admin:eve", 1900, true, true, Err(ReviewError::AlreadyReviewed)),
            ("admin:ops", 1900, false, false, Err(ReviewError::SelfReview)),
            ("admin:ops", 1001, false, true, Err(ReviewError::SelfReview)),
            ("admin:ops", 1001, true, false, Err(ReviewError::SelfReview)),
        ] {
            let said = break_glass_grant(reviewed, withdrawn).check_review(by, Timestamp::from_unix(now));
            assert_eq!(said, want, "{by} at {now}, reviewed: {reviewed}, withdrawn: {withdrawn}");
        }
    }
}
