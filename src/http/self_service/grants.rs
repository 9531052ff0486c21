//! `/v1/grants`: the grants of a requester.

use axum::{
    Json,
    extract::{RawQuery, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    app::{GrantActor, GrantRequest},
    domain::id::ClientId,
    http::{
        AppState,
        admin::grants::{parse_authority, parse_expiry, parse_grant_id},
        error::problem::Problem,
        extract::{
            auth::RequesterAuth, idempotency_key::IdempotencyKey, json::RawJsonBody, path::PathId, query::Query,
        },
        views::{GrantView, ListView},
    },
    ports::GrantFilter,
};

/// The body of `POST /v1/grants`. The token names the requester.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct RequesterGrantBody {
    agent: ClientId,
    authorization_details: Box<RawValue>,
    until: String,
}

/// `POST /v1/grants`
pub(in crate::http) async fn create(
    State(app): State<AppState>,
    RequesterAuth(caller, cx): RequesterAuth,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    RawJsonBody(body): RawJsonBody<RequesterGrantBody>,
) -> Result<Response, Problem> {
    let request = GrantRequest {
        requester: caller.requester().clone(),
        agent: body.agent,
        authority: Some(parse_authority(&body.authorization_details)?),
        until: parse_expiry(&body.until, cx.now)?,
        idempotency_key,
    };
    let grant = app.service.create_grant(GrantActor::Requester(&caller), request, &cx).await?;
    Ok((StatusCode::CREATED, Json(GrantView::from(grant))).into_response())
}

/// `DELETE /v1/grants/{id}`
pub(in crate::http) async fn withdraw(
    State(app): State<AppState>,
    RequesterAuth(caller, cx): RequesterAuth,
    id: PathId,
) -> Result<StatusCode, Problem> {
    app.service.withdraw_grant(GrantActor::Requester(&caller), parse_grant_id(&id)?, &cx).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/grants`
pub(in crate::http) async fn list(
    State(app): State<AppState>,
    RequesterAuth(caller, _): RequesterAuth,
    RawQuery(query): RawQuery,
) -> Result<Json<ListView<GrantView>>, Problem> {
    let query = Query::parse(query.as_deref(), &["after", "limit", "agent"])?;
    let filter = GrantFilter { requester: None, agent: query.parse_value("agent")? };
    let page = app.service.list_grants(GrantActor::Requester(&caller), filter, &query.parse_page()?).await?;
    Ok(Json(ListView::from_page(page, GrantView::from)))
}
