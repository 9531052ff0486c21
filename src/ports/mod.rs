//! What Errand needs from outside, in its own words. "No" and "I could not find out" are different types: every port
//! answers an [`Outage`] when it could not find out, and nobody turns that into a yes or a no.

mod mcp;
mod store;

use std::{borrow::Cow, error::Error as StdError, fmt, pin::Pin, time::Duration};

use async_trait::async_trait;
use serde_json::{Map, Value};
use thiserror::Error;
use uuid::Uuid;

pub use mcp::*;
pub use store::change_listener::*;
pub use store::queries::*;
pub use store::*;

use crate::domain::{
    id::KeyId,
    jose::{
        jwk::{JwkSet, JwsAlgorithm, SigningAlgorithm},
        jws::{CompactJws, UnverifiedJws},
    },
    keys::KeySchedule,
    registry::issuer::TrustedIssuer,
    time::Timestamp,
};

/// Something outside could not be asked, or did not answer. Says during what; the cause is its `source`.
#[derive(Debug, Error)]
#[error("{operation} failed")]
pub struct Outage {
    /// What was being done, such as "commit".
    pub operation: &'static str,
    /// Why it failed.
    pub source: Box<dyn StdError + Send + Sync>,
}

/// What an [`Outage`] says when the store has another schema than this program needs.
pub const OP_CHECK_SCHEMA: &str = "check the store's schema";
/// What an [`Outage`] says when there is no key to sign with.
pub const OP_FIND_SIGNING_KEY: &str = "look for a signing key";

impl Outage {
    /// Wraps the cause: `….map_err(Outage::during("commit"))?`.
    pub fn during<E: Into<Box<dyn StdError + Send + Sync>>>(operation: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self { operation, source: source.into() }
    }
}

/// Displays an error with all its causes on one line, outermost first, separated by `: `. A cause that repeats the text
/// before it is left out.
#[derive(Clone, Copy, Debug)]
pub struct ErrorChain<'a>(pub &'a (dyn StdError + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut written = self.0.to_string();
        f.write_str(&written)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if text != written {
                write!(f, ": {text}")?;
            }
            (written, next) = (text, cause.source());
        }
        Ok(())
    }
}

/// Time. A use-case reads it once.
pub trait Clock: Send + Sync {
    /// The wall clock, to the second.
    fn now(&self) -> Timestamp;

    /// A clock that never goes back, from an arbitrary start: for measuring, and for leases; never for judging tokens. It
    /// goes on while the machine sleeps, as far as the machine can tell.
    fn monotonic(&self) -> Duration;
}

/// Dice.
pub trait Entropy: Send + Sync {
    /// 256 random bits.
    fn random_bytes32(&self) -> Result<[u8; 32], Outage>;

    /// A UUID version 7 (RFC 9562 §5.7): sorts by time, 74 random bits.
    fn new_uuid(&self) -> Uuid;
}

/// Threads beside those that serve requests.
pub trait ThreadSpawner: Send + Sync {
    /// Runs this on a thread of its own until it ends.
    fn spawn(&self, name: &'static str, work: Pin<Box<dyn Future<Output = ()> + Send>>) -> Result<(), Outage>;
}

/// A token of ours, whose signature is good.
#[derive(Clone, Debug)]
pub struct VerifiedToken {
    /// The key that signed it.
    pub key: KeyId,
    /// The header's `typ`.
    pub typ: Cow<'static, str>,
    /// The payload, as we wrote it.
    pub payload: Vec<u8>,
}

/// Our own signing keys. All tokens of ours are signed and verified here.
pub trait Signer: Send + Sync {
    /// Signs `claims` (a JSON object) as a compact JWS of this `typ`, with the active key of the algorithm.
    fn sign(&self, algorithm: SigningAlgorithm, typ: &str, claims: &[u8], now: Timestamp) -> Result<String, Outage>;

    /// The token, if one of our published keys signed it. Takes as long for a stranger's token as for ours.
    fn verify(&self, token: CompactJws<'_>, now: Timestamp) -> Option<VerifiedToken>;

    /// Whether this is still one of our published keys: what it signed is ours as long as it is.
    fn is_published(&self, key: &KeyId, now: Timestamp) -> bool;

    /// The published keys (RFC 7517): pending, active, retired.
    fn jwks(&self, now: Timestamp) -> JwkSet;

    /// The algorithms that have an active key.
    fn active_algorithms(&self, now: Timestamp) -> Vec<SigningAlgorithm>;

    /// The dates of all keys.
    fn schedules(&self) -> Vec<KeySchedule>;

    /// The version of the stored keys that is in use.
    fn version(&self) -> u64;

    /// Takes the stored keys into use, all at once; on an error the old ones stay.
    fn replace_keys(&self, keys: StoredKeys) -> Result<(), Outage>;

    /// Makes a key, sealed and ready to be stored; it is not in use before it comes back by [`replace`](Self::replace).
    fn create_key(
        &self,
        algorithm: SigningAlgorithm,
        now: Timestamp,
        activates: Timestamp,
    ) -> Result<StoredKey, Outage>;
}

/// Why a signature of somebody else is not good.
#[derive(Debug, Error)]
pub enum SignatureError {
    /// No key of theirs fits the `kid` and the algorithm.
    #[error("no key of the signer fits `kid` and `alg`")]
    UnknownKey,
    /// They may not sign with this algorithm.
    #[error("`alg` is not one that the signer may use")]
    AlgorithmNotAllowed,
    /// The signature is wrong.
    #[error("the signature is wrong")]
    InvalidSignature,
    /// Their keys could not be had.
    #[error(transparent)]
    Outage(#[from] Outage),
}

/// The keys of others: issuers, which are asked for them, and clients, whose entries hold them.
#[async_trait]
pub trait TrustedKeys: Send + Sync {
    /// The payload, if a key of the issuer signed it. An unknown `kid` makes us ask the issuer again, at most once a minute.
    async fn verify_with_issuer(
        &self,
        issuer: &TrustedIssuer,
        token: UnverifiedJws<'_>,
        now: Timestamp,
    ) -> Result<Map<String, Value>, SignatureError>;

    /// The payload, if a key of this set signed it.
    fn verify_with_keys(
        &self,
        keys: &JwkSet,
        algorithms: &[JwsAlgorithm],
        token: UnverifiedJws<'_>,
    ) -> Result<Map<String, Value>, SignatureError>;

    /// Does the work of a verification and throws it away: what an unknown client costs, so that it can't be told apart.
    fn verify_dummy(&self, token: UnverifiedJws<'_>);

    /// The issuers whose keys could not be had the last time they were asked for, for health and metrics.
    fn unreachable_issuers(&self) -> Vec<String>;
}
