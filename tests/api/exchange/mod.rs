//! Tests of token exchange over HTTP.

pub(super) mod argument_constraints;
pub(super) mod delegation;
pub(super) mod disclosure;
pub(super) mod happy_path;
pub(super) mod invalid_tokens;
pub(super) mod presenter_binding;
pub(super) mod responses;
pub(super) mod transaction_tokens;
pub(super) mod typ_confusion;
