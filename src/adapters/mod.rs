//! .

pub mod dev_idp;
