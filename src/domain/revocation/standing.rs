//! Standing of a token: live, suspended or revoked.

/// The standing of a token according to the log. If several entries apply, the greatest value in
/// this order wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// No entry revokes or suspends it.
    Live,
    /// Suspended, until its task or agent is resumed.
    Suspended,
    /// Revoked, permanently.
    Revoked,
}
