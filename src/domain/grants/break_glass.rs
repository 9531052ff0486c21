//! Break-glass grants: an admin's substitute for the requester's grant in an emergency.
//!
//! A break-glass grant replaces the requester's grant and nothing else. The requester's evidence is
//! still required, and every ceiling still holds: the agent's, the requester's and the catalogue's.
//! Its use stays listed until another admin reviews it.

use serde::{Deserialize, Serialize};

use crate::domain::{
    grants::Grant,
    id::Reason,
    settings::DEFAULT_BREAK_GLASS_LIFETIME,
    time::{Lifetime, Timestamp},
};

/// A break-glass grant. It is kept for review after it expires or is withdrawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakGlassGrant {
    /// The grant. It always states an authority.
    pub grant: Grant,
    /// The emergency.
    pub reason: Reason,
    /// Whether the grant was withdrawn.
    pub is_withdrawn: bool,
    /// The review, once done.
    pub review: Option<Review>,
}

/// A completed review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Review {
    /// The reviewer: `admin:ID`.
    pub by: String,
    /// The time of the review.
    pub at: Timestamp,
    /// The reviewer's findings.
    pub note: Reason,
}

/// The state of a review.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReviewState {
    /// The review is pending.
    Open,
    /// The review is complete.
    Done,
}

/// `[break_glass]`: the lifetime of break-glass grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakGlassLimits {
    /// The maximum lifetime, and the default if the admin names none (seconds).
    pub max_lifetime: Lifetime,
}

impl Default for BreakGlassLimits {
    fn default() -> Self {
        Self { max_lifetime: DEFAULT_BREAK_GLASS_LIFETIME }
    }
}

/// Why a review is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// The creator may not review their own grant.
    #[error("the creator of a break-glass grant can't review it; another admin must")]
    SelfReview,
    /// The grant could still be used.
    #[error("the break-glass grant is still valid; withdraw it, or wait until it expires")]
    StillValid,
    /// The grant was reviewed before.
    #[error("the break-glass grant has already been reviewed")]
    AlreadyReviewed,
}

impl BreakGlassGrant {
    /// Checks whether this admin may review the grant now. Another admin than the creator reviews
    /// once, after the grant has expired or been withdrawn.
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
            let result = break_glass_grant(reviewed, withdrawn).check_review(by, Timestamp::from_unix(now));
            assert_eq!(result, want, "{by} at {now}, reviewed: {reviewed}, withdrawn: {withdrawn}");
        }
    }
}
