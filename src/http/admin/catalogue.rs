//! `/v1/admin/resources/{id}/catalogue…`: what the MCP server of a resource says of its tools, and what of that is accepted.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    app::{Catalogue, ImportMode, RequestError},
    domain::{
        id::{ClientId, ToolDigest, ToolName},
        registry::{
            client::{Effect, Risk, Tool},
            tool::{Acceptance, ObservedDefinition, ToolDiff, ToolState},
        },
        scope::ScopeToken,
        uri::ResourceUri,
    },
    http::{
        AppState,
        error::problem::Problem,
        extract::{
            auth::{AdminOperator, AdminReader},
            json::JsonBody,
            path::PathId,
        },
    },
};

/// How many tools are accepted at once.
const MAX_ACCEPTED_TOOLS: usize = 512;

/// A resource with its tools.
#[derive(Serialize)]
pub(in crate::http) struct CatalogueView {
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
    offered: Option<CatalogueEntryView>,
    accepted: Option<ObservedDefinitionView>,
    accepted_by: Option<String>,
    seen: Option<ObservedDefinitionView>,
}

#[derive(Serialize)]
struct CatalogueEntryView {
    scope: ScopeToken,
    effect: Effect,
    risk: Risk,
    data_class: Option<String>,
}

/// A definition, as a server says it: a stranger's text.
#[derive(Serialize)]
struct ObservedDefinitionView {
    digest: ToolDigest,
    definition: Option<Box<RawValue>>,
    at: String,
}

impl From<ObservedDefinition> for ObservedDefinitionView {
    fn from(sighting: ObservedDefinition) -> Self {
        Self {
            digest: sighting.digest,
            definition: RawValue::from_string(sighting.definition).ok(),
            at: sighting.at.to_rfc3339(),
        }
    }
}

impl From<Catalogue> for CatalogueView {
    fn from(catalogue: Catalogue) -> Self {
        let tool = |finding: &ToolDiff| {
            let offered = catalogue.find_offered_tool(finding).map(|tool| CatalogueEntryView {
                scope: tool.scope.clone(),
                effect: tool.effect,
                risk: tool.risk,
                data_class: tool.data_class.clone(),
            });
            let record = finding.record.as_ref();
            ToolView {
                name: finding.tool.clone(),
                was: finding.previous_state,
                state: finding.state,
                offered,
                accepted: record.and_then(|record| record.accepted.clone()).map(Into::into),
                accepted_by: record.and_then(|record| record.accepted_by.clone()),
                seen: record.and_then(|record| record.observed.clone()).map(Into::into),
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
pub(in crate::http) async fn read(
    State(app): State<AppState>,
    AdminReader(_, cx): AdminReader,
    PathId(id): PathId,
) -> Result<Json<CatalogueView>, Problem> {
    Ok(Json(app.service.read_catalogue(&id, &cx).await?.into()))
}

/// The body of `POST /v1/admin/resources/{id}/catalogue/import`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ImportBody {
    /// Whether only the difference is wanted.
    #[serde(default)]
    dry_run: bool,
}

/// `POST /v1/admin/resources/{id}/catalogue/import`
pub(in crate::http) async fn import(
    State(app): State<AppState>,
    AdminOperator(admin, cx): AdminOperator,
    PathId(id): PathId,
    JsonBody(body): JsonBody<ImportBody>,
) -> Result<Json<CatalogueView>, Problem> {
    let importing = if body.dry_run { ImportMode::DryRun } else { ImportMode::Apply };
    Ok(Json(app.service.import_catalogue(&admin.identity(), &id, importing, &cx).await?.into()))
}

/// The body of `POST /v1/admin/resources/{id}/catalogue/accept`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct AcceptBody {
    tools: Vec<AcceptedToolBody>,
}

/// A tool whose definition is good; with a scope and an effect, where it is to go into the catalogue as well.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AcceptedToolBody {
    name: ToolName,
    digest: ToolDigest,
    scope: Option<ScopeToken>,
    effect: Option<Effect>,
    risk: Option<Risk>,
    data_class: Option<String>,
}

impl AcceptedToolBody {
    fn into_acceptance(self) -> Result<Acceptance, RequestError> {
        let Self { name, digest, scope, effect, risk, data_class } = self;
        let tool = match (scope, effect) {
            (Some(scope), Some(effect)) => {
                Some(Tool { name: name.clone(), scope, effect, risk: risk.unwrap_or_default(), data_class })
            }
            (None, None) if risk.is_none() && data_class.is_none() => None,
            _ => {
                return Err(RequestError::InvalidParameter(
                    "tools",
                    "a tool goes into the catalogue with `scope` and `effect`",
                ));
            }
        };
        Ok(Acceptance { name, digest, tool })
    }
}

/// `POST /v1/admin/resources/{id}/catalogue/accept`
pub(in crate::http) async fn accept(
    State(app): State<AppState>,
    AdminOperator(admin, cx): AdminOperator,
    PathId(id): PathId,
    JsonBody(body): JsonBody<AcceptBody>,
) -> Result<Json<CatalogueView>, Problem> {
    if !(1..=MAX_ACCEPTED_TOOLS).contains(&body.tools.len()) {
        return Err(
            RequestError::InvalidParameter("tools", "1 to 512 tools with the digest of what was looked at").into()
        );
    }
    let acceptances = body.tools.into_iter().map(AcceptedToolBody::into_acceptance).collect::<Result<Vec<_>, _>>()?;
    Ok(Json(app.service.accept_tools(&admin.identity(), &id, &acceptances, &cx).await?.into()))
}
