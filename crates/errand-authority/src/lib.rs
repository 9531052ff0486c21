//! The authority rules of Errand, for the server and for guards in front of MCP servers.
//!
//! A guard must read a token's authority and the arguments of a call exactly as the server does: a
//! constraint that is interpreted differently limits a different call. Both therefore use this
//! crate. It performs no I/O and has no clock, no randomness and no logging; it needs neither an
//! async runtime nor OpenSSL.
//!
//! | module | contents |
//! |---|---|
//! | [`authority`] | permissions, constraints, their relations; the form `authorization_details` |
//! | [`characters`] | classes of invisible characters |
//! | [`digest`] | SHA-256 digests of tool definitions and of the arguments of a call |
//! | [`encoding`] | canonical JSON (RFC 8785), strict JSON, base64url |
//! | [`id`] | names of tools |
//! | [`tool_definition`] | the definition of a tool, whose digest pins it |
//! | [`uri`] | issuer URLs and resource URIs |
//!
//! # Example
//!
//! A guard checks a call against the `authorization_details` of a valid task token. It checks the
//! digest of the tool's definition too, where the token pins one:
//!
//! ```
//! use errand_authority::{
//!     authority::{Arg, Authority},
//!     uri::ResourceUri,
//! };
//!
//! let authority: Authority = serde_json::from_str(
//!     r#"[{"type": "mcp_tool", "locations": ["https://files.example.com/mcp"],
//!          "actions": ["tools/call"], "identifier": "read_file",
//!          "constraints": {"path": {"prefix": "/reports/"}}}]"#,
//! )?;
//! let this_server: ResourceUri = "https://files.example.com/mcp".parse()?;
//!
//! // Parsed without loss: a number is the decimal that was sent, not the nearest double.
//! let Arg::Object(arguments) = Arg::parse(r#"{"path": "/reports/q3.md"}"#, 64)? else {
//!     return Err("the arguments are not an object".into());
//! };
//! assert!(authority.allows(&this_server, &"read_file".parse()?, &arguments));
//! assert!(!authority.allows(&this_server, &"write_file".parse()?, &arguments));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod authority;
pub mod characters;
pub mod digest;
pub mod encoding;
pub mod id;
pub mod tool_definition;
pub mod uri;
