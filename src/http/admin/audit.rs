//! `/v1/admin/audit`: the audit trail.

use axum::{
    Json,
    extract::{RawQuery, State},
};

use serde_json::Value;

use crate::{
    domain::audit::normalize_search_name,
    http::{
        AppState,
        error::problem::Problem,
        extract::{auth::AdminReader, query::Query},
        views::{AuditView, CheckpointView, ListView},
    },
    ports::AuditFilter,
};

/// `GET /v1/admin/audit`
pub(in crate::http) async fn list(
    State(app): State<AppState>,
    AdminReader(admin, _): AdminReader,
    RawQuery(query): RawQuery,
) -> Result<Json<ListView<AuditView>>, Problem> {
    let permit = app.service.admit_list(&admin)?;
    let names = ["after", "limit", "from", "until", "task", "issuer", "subject", "agent", "token", "resource"];
    let names = [&names[..], &["request_id", "event", "outcome"]].concat();
    let query = Query::parse(query.as_deref(), &names)?;
    let filter = AuditFilter {
        task: query.parse_value("task")?,
        requester: query.parse_requester()?,
        agent: query.text("agent").map(normalize_search_name),
        token: query.parse_value("token")?,
        resource: query.text("resource").map(normalize_search_name),
        request_id: query.parse_value("request_id")?,
        event: query.parse_word("event", "not a known event; the API description lists the events")?,
        outcome: query.parse_word("outcome", "must be `done`, `refused`, `failed`, `active` or `inactive`")?,
        occurred_from: query.parse_time("from")?,
        occurred_before: query.parse_time("until")?,
    };
    let page = app.service.list_audit(&filter, &query.parse_page()?).await?;
    permit.count_rows(page.items.len());
    Ok(Json(ListView::from_page(page, AuditView::from)))
}

/// `GET /v1/admin/audit/checkpoints`
pub(in crate::http) async fn list_checkpoints(
    State(app): State<AppState>,
    AdminReader(admin, _): AdminReader,
    RawQuery(query): RawQuery,
) -> Result<Json<ListView<CheckpointView>>, Problem> {
    let permit = app.service.admit_list(&admin)?;
    let query = Query::parse(query.as_deref(), &["after", "limit"])?;
    let page = app.service.list_checkpoints(&query.parse_page()?).await?;
    permit.count_rows(page.items.len());
    Ok(Json(ListView::from_page(page, CheckpointView::from)))
}

/// `GET /v1/admin/audit/keys`
pub(in crate::http) async fn checkpoint_keys(State(app): State<AppState>, _: AdminReader) -> Json<Value> {
    Json(Value::from(app.service.checkpoint_jwks()))
}
