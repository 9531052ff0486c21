//! The authority rules of Errand.

pub mod authority;
pub mod digest;
pub mod encoding;
pub mod id;
pub mod tool_definition;
pub mod uri;
