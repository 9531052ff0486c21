//! Domain rules as pure functions over plain data: no `await`, I/O, clock, randomness, logging or
//! panics.

pub mod admission;
pub mod audit;
pub mod configuration;
pub mod evaluation;
pub mod exchange;
pub mod four_eyes;
pub mod grants;
pub mod jose;
pub mod replication;
pub mod settings;

pub mod id;
pub mod keys;
pub mod printable;
pub mod quota;
pub mod registry;
pub mod requester;
pub mod revocation;
pub mod scope;
pub mod sealed_key;
pub mod secret;
pub mod status_list;
pub mod task;
pub mod time;
pub mod token;
pub mod version;

pub use errand_authority::{
    authority, encoding,
    encoding::{decode_base64url, encode_base64url},
    uri,
};
