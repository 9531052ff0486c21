//! Encodings: canonical JSON (RFC 8785), strict JSON, base64url, validated text for serde.

mod base64url;
pub mod jcs;
pub mod serde_text;
pub mod strict_json;

pub use base64url::{decode_base64url, encode_base64url};
