//! Keys of other parties.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use serde_json::{Map, Value};
use thiserror::Error;

use super::Outage;
use crate::domain::{
    id::ClientId,
    jose::{
        jwk::{JwkSet, JwsAlgorithm},
        jws::UnverifiedJws,
    },
    registry::issuer::{IssuerKeyId, TrustedIssuer},
    uri::IssuerUrl,
};

/// A reason why another party's signature was not accepted.
#[derive(Debug, Error)]
pub enum SignatureError {
    /// The signer has no key for the `kid` and the algorithm.
    #[error("the signer has no key for this `kid` and `alg`")]
    UnknownKey,
    /// The signer may not use the algorithm.
    #[error("`alg` is not allowed for the signer")]
    AlgorithmNotAllowed,
    /// The signature is not valid.
    #[error("the signature is not valid")]
    InvalidSignature,
    /// An admin withdrew the key.
    #[error("an admin withdrew the key of this `kid`")]
    WithdrawnKey,
    /// The signer's keys could not be fetched.
    #[error(transparent)]
    Outage(#[from] Outage),
}

/// The caller on whose behalf an unknown `kid` makes an issuer's keys be fetched again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchCaller<'a> {
    /// A client that has authenticated. Each has a limit of its own.
    Client(&'a ClientId),
    /// A caller whose only credential is the token. All of them share one limit.
    Anonymous,
}

/// The keys of other parties: issuers publish theirs, and clients have theirs in the registry.
#[async_trait]
pub trait TrustedKeys: Send + Sync {
    /// Returns the payload if a key of the issuer signed it. An unknown `kid` makes the keys be
    /// fetched again, within the limits of the caller. Beyond these, whether the issuer has the key
    /// is not known, which is an outage.
    async fn verify_with_issuer(
        &self,
        issuer: &TrustedIssuer,
        token: UnverifiedJws<'_>,
        caller: FetchCaller<'_>,
    ) -> Result<Map<String, Value>, SignatureError>;

    /// Returns the payload if a key of this set signed it.
    fn verify_with_keys(
        &self,
        keys: &JwkSet,
        algorithms: &[JwsAlgorithm],
        token: UnverifiedJws<'_>,
    ) -> Result<Map<String, Value>, SignatureError>;

    /// Verifies the token and discards the result, so that timing does not reveal an unknown
    /// client.
    fn verify_dummy(&self, token: UnverifiedJws<'_>);

    /// Discards the cached keys of an issuer: the next use fetches them.
    fn discard_issuer_keys(&self, issuer: &IssuerUrl);

    /// Replaces the set of keys that must not be used, although their issuers publish them.
    fn set_withdrawn_keys(&self, withdrawn: BTreeSet<IssuerKeyId>);

    /// Returns how long ago the cached keys of each issuer were fetched, for metrics.
    fn issuer_key_ages(&self) -> Vec<(String, Duration)>;

    /// Returns the issuers whose last key fetch failed, for health and metrics.
    fn unreachable_issuers(&self) -> Vec<String>;
}
