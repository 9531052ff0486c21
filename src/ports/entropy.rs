//! Randomness.

use uuid::Uuid;

use super::Outage;

/// A cryptographically secure source of randomness.
pub trait Entropy: Send + Sync {
    /// Returns 256 random bits.
    fn random_bytes32(&self) -> Result<[u8; 32], Outage>;

    /// Returns a UUID version 7 (RFC 9562 §5.7): sorted by time, with 74 random bits.
    fn new_uuid(&self) -> Uuid;
}
