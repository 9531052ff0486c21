//! `/v1/admin/grants`: grants, for admins.

use axum::{
    Json,
    extract::{RawQuery, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    app::{ConflictError, GrantActor, GrantRequest, RequestError},
    domain::{
        authority::{Authority, parse_details},
        id::{ClientId, GrantId, Subject},
        task::Requester,
        time::Timestamp,
        uri::IssuerUrl,
    },
    http::{
        AppState,
        error::problem::Problem,
        extract::{
            auth::{AdminOperator, AdminReader},
            idempotency_key::IdempotencyKey,
            json::RawJsonBody,
            path::PathId,
            query::Query,
        },
        views::{GrantView, ListView},
    },
    ports::GrantFilter,
};

/// The body of `POST /v1/admin/grants`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct GrantBody {
    issuer: IssuerUrl,
    subject: Subject,
    agent: ClientId,
    authorization_details: Option<Box<RawValue>>,
    until: String,
}

/// `POST /v1/admin/grants`
pub(in crate::http) async fn create(
    State(app): State<AppState>,
    AdminOperator(admin, cx): AdminOperator,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    RawJsonBody(body): RawJsonBody<GrantBody>,
) -> Result<Response, Problem> {
    let request = GrantRequest {
        requester: Requester { issuer: body.issuer, subject: body.subject },
        agent: body.agent,
        authority: body.authorization_details.as_deref().map(parse_authority).transpose()?,
        until: parse_expiry(&body.until, cx.now)?,
        idempotency_key,
    };
    let grant = app.service.create_grant(GrantActor::Admin(&admin), request, &cx).await?;
    Ok((StatusCode::CREATED, Json(GrantView::from(grant))).into_response())
}

/// `DELETE /v1/admin/grants/{id}`
pub(in crate::http) async fn withdraw(
    State(app): State<AppState>,
    AdminOperator(admin, cx): AdminOperator,
    id: PathId,
) -> Result<StatusCode, Problem> {
    app.service.withdraw_grant(GrantActor::Admin(&admin), parse_grant_id(&id)?, &cx).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /v1/admin/grants`: all grants of a requester to an agent.
pub(in crate::http) async fn withdraw_all(
    State(app): State<AppState>,
    AdminOperator(admin, cx): AdminOperator,
    RawQuery(query): RawQuery,
) -> Result<StatusCode, Problem> {
    let query = Query::parse(query.as_deref(), &["issuer", "subject", "agent"])?;
    let requester = Requester {
        issuer: query.parse_value("issuer")?.ok_or(RequestError::MissingParameter("issuer"))?,
        subject: query.parse_value("subject")?.ok_or(RequestError::MissingParameter("subject"))?,
    };
    let agent = query.parse_value("agent")?.ok_or(RequestError::MissingParameter("agent"))?;
    app.service.withdraw_grants(&admin, &requester, &agent, &cx).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/admin/grants`
pub(in crate::http) async fn list(
    State(app): State<AppState>,
    AdminReader(admin, _): AdminReader,
    RawQuery(query): RawQuery,
) -> Result<Json<ListView<GrantView>>, Problem> {
    let query = Query::parse(query.as_deref(), &["after", "limit", "issuer", "subject", "agent"])?;
    let filter = GrantFilter { requester: query.parse_requester()?, agent: query.parse_value("agent")? };
    let permit = app.service.admit_list(&admin)?;
    let page = app.service.list_grants(GrantActor::Admin(&admin), filter, &query.parse_page()?).await?;
    permit.count_rows(page.items.len());
    Ok(Json(ListView::from_page(page, GrantView::from)))
}

/// Parses the authorization details of a grant.
pub(in crate::http) fn parse_authority(text: &RawValue) -> Result<Authority, RequestError> {
    Ok(parse_details(text.get(), None)?)
}

/// Parses the end of a grant, which must be in the future.
pub(in crate::http) fn parse_expiry(text: &str, now: Timestamp) -> Result<Timestamp, RequestError> {
    let until =
        Timestamp::parse_rfc3339(text).ok_or(RequestError::InvalidParameter("until", "must be an RFC 3339 time"))?;
    if until.has_passed(now) {
        Err(RequestError::InvalidParameter("until", "must be in the future"))
    } else {
        Ok(until)
    }
}

pub(in crate::http) fn parse_grant_id(PathId(id): &PathId) -> Result<GrantId, Problem> {
    id.parse::<GrantId>().map_err(|_| ConflictError::NotFound("grant").into())
}
