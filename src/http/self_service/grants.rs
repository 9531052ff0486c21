//! `/v1/grants`: the grants of a requester.

use axum::{
    Json,
    extract::{RawQuery, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    app::{GrantActor, GrantRequest, RequestError},
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

/// The answer of `GET /v1/grants`.
#[derive(Serialize)]
pub(in crate::http) struct OwnGrantsView {
    #[serde(flatten)]
    page: ListView<GrantView>,
    /// The agents that the requester refused.
    refused_agents: Vec<ClientId>,
}

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

/// `DELETE /v1/grants`: ends everything that an agent does for the requester, and refuses it more.
pub(in crate::http) async fn refuse(
    State(app): State<AppState>,
    RequesterAuth(caller, cx): RequesterAuth,
    RawQuery(query): RawQuery,
) -> Result<StatusCode, Problem> {
    let query = Query::parse(query.as_deref(), &["agent"])?;
    let agent = query.parse_value("agent")?.ok_or(RequestError::MissingParameter("agent"))?;
    app.service.refuse_agent(&caller, &agent, &cx).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/grants`
pub(in crate::http) async fn list(
    State(app): State<AppState>,
    RequesterAuth(caller, _): RequesterAuth,
    RawQuery(query): RawQuery,
) -> Result<Json<OwnGrantsView>, Problem> {
    let query = Query::parse(query.as_deref(), &["after", "limit", "agent"])?;
    let filter = GrantFilter { requester: None, agent: query.parse_value("agent")? };
    let permit = app.service.admit_requester_list(&caller)?;
    let page = app.service.list_grants(GrantActor::Requester(&caller), filter, &query.parse_page()?).await?;
    let refused_agents = caller.snapshot().refused_agents(caller.requester());
    permit.count_rows(page.items.len());
    Ok(Json(OwnGrantsView { page: ListView::from_page(page, GrantView::from), refused_agents }))
}
