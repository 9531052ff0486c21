//! Tokens: the claims of this server's own, with one struct for each kind so that kinds can't be
//! confused, and the validated claims of foreign ones.

pub mod actor_chain;
mod catalogue;
mod claims;
mod digest;
pub mod foreign_claims;

pub use catalogue::CATALOGUE_CLIENT_ID;
pub use claims::{
    ApiTokenClaims, NextActor, TYP_ACCESS_TOKEN, TYP_INTROSPECTION, TYP_TXN_TOKEN, TaskContext, TaskRef,
    TaskTokenClaims, TokenKind, check_expiry,
};
pub use digest::TokenDigest;
