//! Errand: an OAuth token-exchange server
//! ([RFC 8693](https://www.rfc-editor.org/rfc/rfc8693)) for AI agents.
//!
//! Errand exchanges a person's token for a task token: for one task, one MCP server, named tools
//! and a few minutes. This crate is the server behind the binary `errand`. The protocol, the
//! configuration and the guarantees are documented in `docs/`; this page is a tour of the code.
//!
//! # Layers
//!
//! | layer | contents |
//! |---|---|
//! | [`bootstrap`] | the composition root: configuration, adapters, service, background tasks |
//! | [`config`] | from a TOML file and the environment to a configuration, or a list of errors |
//! | [`http`] | transport: extractors, handlers, status codes, error bodies, TLS |
//! | [`app`] | use cases: collect facts through ports, let the domain decide, act through ports |
//! | [`ports`] | traits for everything outside: store, clock, randomness, signer, issuer keys |
//! | [`adapters`] | implementations of the ports; each module owns one foreign system |
//! | [`domain`] | the rules: pure functions over plain data, without I/O, clock or randomness |
//!
//! Imports go in one direction: `http → app → ports → domain` and `adapters → ports → domain`. Only
//! [`bootstrap`] and the commands know all layers. `tests/architecture/main.rs` enforces this,
//! including which layer may use which external crate.
//!
//! The rules that a guard in front of an MCP server needs as well are in the crate
//! [`errand_authority`]. [`domain`] re-exports them.
//!
//! # The path of a request
//!
//! `POST /oauth2/token` exchanges a token:
//!
//! 1. [`http`] assigns the request id and reads the clock once. An extractor parses the form and
//!    authenticates the client; a handler has no other access to the form.
//! 2. [`app::Service::exchange`] verifies the subject token: its signature through
//!    [`ports::TrustedKeys`] or [`ports::Signer`], its claims with [`domain::token`], and its
//!    standing with the revocation log of [`domain::revocation`].
//! 3. [`domain::exchange::decide`] decides. It gets everything that matters as an
//!    [`ExchangeInput`](domain::exchange::ExchangeInput), and returns a
//!    [`TokenPlan`](domain::exchange::TokenPlan) or a [`Denial`](domain::exchange::Denial).
//! 4. [`app`] signs the planned token, and then commits its record, its task and the audit record
//!    through [`ports::Store`]. The token leaves the process only after the commit.
//! 5. [`http`] maps the result to the response. One exhaustive table maps each error to a code and
//!    a status.
//!
//! `POST /oauth2/introspect` takes the same path to [`app::Service::introspect`]. While the
//! replica's lease is valid, it needs no access to the store. If the lease has expired and the
//! store is unreachable, the response is neither "active" nor "inactive", but 503.
//!
//! A revocation (`POST /v1/admin/revocations`) is an entry of the log that all replicas follow. The
//! request is acknowledged when every replica has applied the entry or lost its lease.
//!
//! # Where to find what
//!
//! | topic | module |
//! |---|---|
//! | what a token may contain | [`domain::exchange`], [`domain::authority`] |
//! | agents, resources, issuers, tools | [`domain::registry`] |
//! | revocation and the log | [`domain::revocation`], [`domain::replication`] |
//! | tasks and their states | [`domain::task`] |
//! | consent and break-glass grants | [`domain::grants`] |
//! | claims of user tokens and task tokens | [`domain::token`] |
//! | audit records and their hash chain | [`domain::audit`] |
//! | status lists for offline verification | [`domain::status_list`] |
//! | SQL for PostgreSQL and SQLite | [`adapters::store`] |

pub mod adapters;
pub mod app;
pub mod bootstrap;
pub mod config;
pub mod domain;
pub mod http;
pub mod ports;
