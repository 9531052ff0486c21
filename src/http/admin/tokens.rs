//! `/v1/admin/tokens`: the records of issued tokens.

use axum::{
    Json,
    extract::{RawQuery, State},
};

use crate::{
    app::ConflictError,
    domain::id::TokenId,
    http::{
        AppState,
        error::problem::Problem,
        extract::{auth::AdminReader, path::PathId, query::Query},
        views::{ListView, TokenView},
    },
    ports::TokenFilter,
};

/// `GET /v1/admin/tokens`
pub(in crate::http) async fn list(
    State(app): State<AppState>,
    AdminReader(admin, cx): AdminReader,
    RawQuery(query): RawQuery,
) -> Result<Json<ListView<TokenView>>, Problem> {
    let permit = app.service.admit_list(&admin)?;
    let names = ["after", "limit", "task", "issuer", "subject", "client", "audience", "alive"];
    let query = Query::parse(query.as_deref(), &names)?;
    let filter = TokenFilter {
        task: query.parse_value("task")?,
        requester: query.parse_requester()?,
        client: query.parse_value("client")?,
        audience: query.text("audience").map(str::to_owned),
        unexpired_at: query.parse_value::<bool>("alive")?.unwrap_or(false).then_some(cx.now),
        issued_from: None,
    };
    let page = app.service.list_tokens(&filter, &query.parse_page()?).await?;
    permit.count_rows(page.items.len());
    Ok(Json(ListView::from_page(page, TokenView::from)))
}

/// `GET /v1/admin/tokens/{id}`
pub(in crate::http) async fn read(
    State(app): State<AppState>,
    _: AdminReader,
    PathId(id): PathId,
) -> Result<Json<TokenView>, Problem> {
    let id = id.parse::<TokenId>().map_err(|_| ConflictError::NotFound("token"))?;
    Ok(Json(app.service.read_token(id).await?.into()))
}
