//! The interfaces through which Errand uses the outside world.
//!
//! A refusal and an outage are different types. Every port returns an [`Outage`] when it could not
//! find an answer, and no caller turns an outage into a yes or a no.

mod audit_keys;
mod clock;
mod entropy;
mod mcp;
mod outage;
mod process;
mod signer;
mod store;
mod store_sealer;
mod tampering;
mod threads;
mod trusted_keys;

pub use audit_keys::AuditKeys;
pub use clock::Clock;
pub use entropy::Entropy;
pub use mcp::{ListingProblem, McpServers, ToolListing, ToolListingError, ToolProblem, UnusableTool};
pub use outage::{ErrorChain, OP_CHECK_SCHEMA, OP_FIND_SIGNING_KEY, Outage, RetryLater};
pub use process::ProcessUsage;
pub use signer::{Signer, VerifiedToken};
pub use store::*;
pub use store_sealer::StoreSealer;
pub use tampering::TamperingError;
pub use threads::ThreadSpawner;
pub use trusted_keys::{FetchCaller, SignatureError, TrustedKeys};
