//! The standing of a token.

/// What the log says of a token now. Of two words about one token, the later one in this order counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nothing that would end it.
    Live,
    /// Held back, until its task or the agent is resumed.
    Suspended,
    /// Ended, for good.
    Revoked,
}
