//! Errand: an OAuth token-exchange server (RFC 8693) for AI agents.
//!
//! A request's way through the house, top to bottom and back:
//!
//! ```text
//! main      argv -> config -> adapters -> service -> serve until told to stop
//! http      the edge: syntax and status codes
//! app       use-cases: gather facts through ports, ask the domain, act through ports
//! domain    the rules: pure functions over plain data
//! ports     what we need from outside, in our own words
//! adapters  the outside: each file owns one foreign thing
//! ```
//!
//! Imports go down only: `http -> app -> ports -> domain` and `adapters -> ports -> domain`; a test holds the code to it.

pub mod adapters;
pub mod app;
pub mod bootstrap;
pub mod config;
pub mod domain;
pub mod http;
pub mod ports;
