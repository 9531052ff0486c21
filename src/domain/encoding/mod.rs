//! Encodings: RFC 8785 canonical JSON, strict JSON, base64url, serde as text.

pub mod jcs;
pub(super) mod serde_text;
pub mod strict_json;
