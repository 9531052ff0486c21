//! `/v1/admin/resources/{id}/catalogue…`: what the MCP server of a resource says of its tools, and what of that is accepted.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    app::{BadRequest, Catalogue, Importing},
    domain::{
        client::{Effect, Risk, Tool},
        id::{ClientId, ToolDigest, ToolName},
        scope::ScopeToken,
        tool::{Acceptance, Finding, Sighting, ToolState},
        uri::ResourceUri,
    },
    http::{
        App,
        body::JsonBody,
        client_auth::{Operator, Reader},
        path::Id,
        problem::Problem,
    },
};

/// How many tools are accepted at once.
const MAX_ACCEPTED: usize = 512;

/// A resource with its tools.
#[derive(Serialize)]
pub(super) struct CatalogueView {
    resource: ClientId,
    uri: ResourceUri,
    /// How many tools the server lists that can't be used; null, when it was not asked.
    unusable: Option<usize>,
    tools: Vec<ToolView>,
}

/// A tool: how it stands, how it is offered, which definitions of it there are.
#[derive(Serialize)]
struct ToolView {
    name: ToolName,
    was: ToolState,
    state: ToolState,
    offered: Option<OfferView>,
    accepted: Option<SightingView>,
    accepted_by: Option<String>,
    seen: Option<SightingView>,
}

#[derive(Serialize)]
struct OfferView {
    scope: ScopeToken,
    effect: Effect,
    risk: Risk,
    data_class: Option<String>,
}

/// A definition, as a server says it: a stranger's text.
#[derive(Serialize)]
struct SightingView {
    digest: ToolDigest,
    definition: Option<Box<RawValue>>,
    at: String,
}

impl From<Sighting> for SightingView {
    fn from(sighting: Sighting) -> Self {
        Self {
            digest: sighting.digest,
            definition: RawValue::from_string(sighting.definition).ok(),
            at: sighting.at.rfc3339(),
        }
    }
}

impl From<Catalogue> for CatalogueView {
    fn from(catalogue: Catalogue) -> Self {
        let tool = |finding: &Finding| {
            let offered = catalogue.offered(finding).map(|tool| OfferView {
                scope: tool.scope.clone(),
                effect: tool.effect,
                risk: tool.risk,
                data_class: tool.data_class.clone(),
            });
            let record = finding.record.as_ref();
            ToolView {
                name: finding.tool.clone(),
                was: finding.was,
                state: finding.is,
                offered,
                accepted: record.and_then(|record| record.accepted.clone()).map(Into::into),
                accepted_by: record.and_then(|record| record.accepted_by.clone()),
                seen: record.and_then(|record| record.seen.clone()).map(Into::into),
            }
        };
        Self {
            tools: catalogue.tools.iter().map(tool).collect(),
            unusable: catalogue.unusable,
            uri: catalogue.resource.uri.clone(),
            resource: catalogue.resource.id.clone(),
        }
    }
}

/// `GET /v1/admin/resources/{id}/catalogue`
pub(super) async fn read(
    State(app): State<App>,
    Reader(_, cx): Reader,
    Id(id): Id,
) -> Result<Json<CatalogueView>, Problem> {
    Ok(Json(app.service.read_catalogue(&id, &cx).await?.into()))
}

/// The body of `POST /v1/admin/resources/{id}/catalogue/import`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImportBody {
    /// Whether only the difference is wanted.
    #[serde(default)]
    dry_run: bool,
}

/// `POST /v1/admin/resources/{id}/catalogue/import`
pub(super) async fn import(
    State(app): State<App>,
    Operator(admin, cx): Operator,
    Id(id): Id,
    JsonBody(body): JsonBody<ImportBody>,
) -> Result<Json<CatalogueView>, Problem> {
    let importing = if body.dry_run { Importing::Show } else { Importing::Keep };
    Ok(Json(app.service.import_catalogue(&admin.name(), &id, importing, &cx).await?.into()))
}

/// The body of `POST /v1/admin/resources/{id}/catalogue/accept`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AcceptBody {
    tools: Vec<AcceptedBody>,
}

/// A tool whose definition is good; with a scope and an effect, where it is to go into the catalogue as well.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AcceptedBody {
    name: ToolName,
    digest: ToolDigest,
    scope: Option<ScopeToken>,
    effect: Option<Effect>,
    risk: Option<Risk>,
    data_class: Option<String>,
}

impl AcceptedBody {
    fn read(self) -> Result<Acceptance, BadRequest> {
        let Self { name, digest, scope, effect, risk, data_class } = self;
        let tool = match (scope, effect) {
            (Some(scope), Some(effect)) => {
                Some(Tool { name: name.clone(), scope, effect, risk: risk.unwrap_or_default(), data_class })
            }
            (None, None) if risk.is_none() && data_class.is_none() => None,
            _ => return Err(BadRequest::Invalid("tools", "a tool goes into the catalogue with `scope` and `effect`")),
        };
        Ok(Acceptance { name, digest, tool })
    }
}

/// `POST /v1/admin/resources/{id}/catalogue/accept`
pub(super) async fn accept(
    State(app): State<App>,
    Operator(admin, cx): Operator,
    Id(id): Id,
    JsonBody(body): JsonBody<AcceptBody>,
) -> Result<Json<CatalogueView>, Problem> {
    if !(1..=MAX_ACCEPTED).contains(&body.tools.len()) {
        return Err(BadRequest::Invalid("tools", "1 to 512 tools with the digest of what was looked at").into());
    }
    let acceptances = body.tools.into_iter().map(AcceptedBody::read).collect::<Result<Vec<_>, _>>()?;
    Ok(Json(app.service.accept_tools(&admin.name(), &id, &acceptances, &cx).await?.into()))
}
