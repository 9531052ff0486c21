//! `/v1/admin/break-glass`: break-glass grants and their review.

use axum::{
    Json,
    extract::{RawQuery, State},
    http::StatusCode,
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
        admin::grants::parse_authority,
        error::problem::Problem,
        extract::{
            auth::{AdminOperator, AdminReader},
            idempotency_key::IdempotencyKey,
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

/// A break-glass grant.
#[derive(Serialize)]
pub(in crate::http) struct BreakGlassView {
    #[serde(flatten)]
    grant: GrantView,
    reason: Reason,
    withdrawn: bool,
    /// Null until an admin has reviewed the grant.
    review: Option<ReviewView>,
}

#[derive(Serialize)]
struct ReviewView {
    by: String,
    at: String,
    note: Reason,
}

impl From<BreakGlassGrant> for BreakGlassView {
    fn from(break_glass: BreakGlassGrant) -> Self {
        let view = |Review { by, at, note }| ReviewView { by, at: at.to_rfc3339(), note };
        Self {
            grant: break_glass.grant.into(),
            reason: break_glass.reason,
            withdrawn: break_glass.is_withdrawn,
            review: break_glass.review.map(view),
        }
    }
}

/// `POST /v1/admin/break-glass`
pub(in crate::http) async fn create(
    State(app): State<AppState>,
    AdminOperator(admin, cx): AdminOperator,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    RawJsonBody(body): RawJsonBody<BreakGlassBody>,
) -> Result<Response, Problem> {
    let request = BreakGlassRequest {
        requester: Requester { issuer: body.issuer, subject: body.subject },
        agent: body.agent,
        authority: parse_authority(&body.authorization_details)?,
        reason: body.reason,
        lifetime: body.lifetime,
        idempotency_key,
    };
    let grant = app.service.create_break_glass(&admin, request, &cx).await?;
    Ok((StatusCode::CREATED, Json(BreakGlassView::from(grant))).into_response())
}

/// `GET /v1/admin/break-glass`
pub(in crate::http) async fn list(
    State(app): State<AppState>,
    AdminReader(admin, _): AdminReader,
    RawQuery(query): RawQuery,
) -> Result<Json<ListView<BreakGlassView>>, Problem> {
    let permit = app.service.admit_list(&admin)?;
    let query = Query::parse(query.as_deref(), &["after", "limit", "review"])?;
    let review = query.parse_word("review", "must be `open` or `done`")?;
    let page = app.service.list_break_glass(review, &query.parse_page()?).await?;
    permit.count_rows(page.items.len());
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
    IdempotencyKey(idempotency_key): IdempotencyKey,
    JsonBody(body): JsonBody<ReviewBody>,
) -> Result<Json<BreakGlassView>, Problem> {
    let id = parse_grant_id(&id)?;
    Ok(Json(app.service.review_break_glass(&admin, id, body.note, idempotency_key, &cx).await?.into()))
}

fn parse_grant_id(PathId(id): &PathId) -> Result<GrantId, Problem> {
    id.parse::<GrantId>().map_err(|_| ConflictError::NotFound("break-glass grant").into())
}
