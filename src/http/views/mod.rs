//! JSON representations of the APIs. Times are RFC 3339; lists are pages with a cursor.

mod audit;
mod grant;
mod list;
mod propagation;
mod registry;
mod revocation;
mod task;
mod token;
mod tree;

pub(super) use audit::{AuditView, CheckpointView};
pub(super) use grant::GrantView;
pub(super) use list::ListView;
pub(super) use propagation::PropagationView;
pub(super) use registry::{BlockView, CreatedKeyView, KeyView, ObjectView, SecretView};
pub(super) use revocation::{RevocationReceiptView, RevocationView};
pub(super) use task::{CallReceiptView, RequesterView, TaskView, TrailView, TransitionedTaskView};
pub(super) use token::TokenView;
pub(super) use tree::TaskTreeView;
