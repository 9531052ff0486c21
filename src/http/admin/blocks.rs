//! `/v1/admin/blocks`: the blocked and suspended parties.

use axum::Json;

use crate::http::{
    extract::auth::AdminReader,
    views::{BlockView, ListView},
};

/// `GET /v1/admin/blocks`
pub(in crate::http) async fn list(AdminReader(caller, _): AdminReader) -> Json<ListView<BlockView>> {
    let blocks = caller.client().snapshot().registry.blocks().iter().map(BlockView::from);
    Json(ListView::complete(blocks.collect()))
}
