//! The HTTP server: TCP, TLS, connection limits.

mod connection;
mod connection_table;
pub(super) mod limits;
pub(super) mod listener;
mod received_body;
mod refusal_pace;
pub(super) mod source_address;
pub(super) mod tls;
mod tracked_body;
mod transport;
