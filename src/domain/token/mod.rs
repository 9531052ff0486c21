//! Our own tokens: what stands in them. One struct a kind, so that one can't be read as the other.

pub mod actor_chain;
mod claims;
mod digest;
pub mod foreign_claims;

pub use claims::{
    ApiTokenClaims, NextActor, TYP_ACCESS_TOKEN, TYP_INTROSPECTION, TYP_TXN_TOKEN, TaskContext, TaskRef,
    TaskTokenClaims, TokenKind, check_expiry,
};
pub use digest::TokenDigest;
