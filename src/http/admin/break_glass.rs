//! `/v1/admin/break-glass`: grants for an emergency, and their review.

use axum::{
    Json,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    app::{BreakGlassRequest, ConflictError},
    domain::{
        grants::break_glass::{BreakGlassGrant, Review},
        id::{ClientId, GrantId, Reason, Subject},
        task::Requester,
        time::Lifetime,
        uri::IssuerUrl,
    },
    http::{
        AppState,
        admin::{grants::parse_authority, registry::extract_idempotency_key},
        error::problem::Problem,
        extract::{
            auth::{AdminOperator, AdminReader},
            json::{JsonBody, RawJsonBody},
            path::PathId,
            query::Query,
        },
        views::{GrantView, ListView},
    },
};

/// The body of `POST /v1/admin/break-glass`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct BreakGlassBody {
    issuer: IssuerUrl,
    subject: Subject,
    agent: ClientId,
    authorization_details: Box<RawValue>,
    reason: Reason,
    lifetime: Option<Lifetime>,
}

/// The body of `POST /v1/admin/break-glass/{id}/review`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ReviewBody {
    note: Reason,
}

/// A grant for an emergency.
#[derive(Serialize)]
pub(in crate::http) struct BreakGlassView {
    #[serde(flatten)]
    grant: GrantView,
    reason: Reason,
    withdrawn: bool,
    /// Null until somebody signed it off.
    review: Option<ReviewView>,
}

#[derive(Serialize)]
struct ReviewView {
    by: String,
    at: String,
    note: Reason,
}

impl From<BreakGlassGrant> for BreakGlassView {
    fn from(glass: BreakGlassGrant) -> Self {
        let review = |Review { by, at, note }| ReviewView { by, at: at.to_rfc3339(), note };
        Self {
            grant: glass.grant.into(),
            reason: glass.reason,
            withdrawn: glass.is_withdrawn,
            review: glass.review.map(review),
        }
    }
}

/// `POST /v1/admin/break-glass`
pub(in crate::http) async fn create(
    State(app): State<AppState>,
    AdminOperator(admin, cx): AdminOperator,
    headers: HeaderMap,
    RawJsonBody(body): RawJsonBody<BreakGlassBody>,
) -> Result<Response, Problem> {
    let request = BreakGlassRequest {
        requester: Requester { issuer: body.issuer, subject: body.subject },
        agent: body.agent,
        authority: parse_authority(&body.authorization_details)?,
        reason: body.reason,
        lifetime: body.lifetime,
        idempotency_key: extract_idempotency_key(&headers)?,
    };
    let glass = app.service.create_break_glass(&admin, request, &cx).await?;
    Ok((StatusCode::CREATED, Json(BreakGlassView::from(glass))).into_response())
}

/// `GET /v1/admin/break-glass`
pub(in crate::http) async fn list(
    State(app): State<AppState>,
    _: AdminReader,
    RawQuery(query): RawQuery,
) -> Result<Json<ListView<BreakGlassView>>, Problem> {
    let query = Query::parse(query.as_deref(), &["after", "limit", "review"])?;
    let page = app.service.list_break_glass(query.parse_word("review")?, &query.parse_page()?).await?;
    Ok(Json(ListView::from_page(page, BreakGlassView::from)))
}

/// `GET /v1/admin/break-glass/{id}`
pub(in crate::http) async fn read(
    State(app): State<AppState>,
    _: AdminReader,
    id: PathId,
) -> Result<Json<BreakGlassView>, Problem> {
    Ok(Json(app.service.read_break_glass(parse_grant_id(&id)?).await?.into()))
}

/// `POST /v1/admin/break-glass/{id}/review`
pub(in crate::http) async fn review(
    State(app): State<AppState>,
    AdminOperator(admin, cx): AdminOperator,
    id: PathId,
    headers: HeaderMap,
    JsonBody(body): JsonBody<ReviewBody>,
) -> Result<Json<BreakGlassView>, Problem> {
    let (id, key) = (parse_grant_id(&id)?, extract_idempotency_key(&headers)?);
    Ok(Json(app.service.review_break_glass(&admin, id, body.note, key, &cx).await?.into()))
}

fn parse_grant_id(PathId(id): &PathId) -> Result<GrantId, Problem> {
    id.parse::<GrantId>().map_err(|_| ConflictError::NotFound("break-glass grant").into())
}
