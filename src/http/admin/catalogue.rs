//! `/v1/admin/resources/{id}/catalogue…`: the tools that the MCP server of a resource lists, and
//! the accepted definitions.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    app::{Actor, Catalogue, ImportMode, RequestError},
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

/// Maximum number of tools in one request to accept.
const MAX_ACCEPTED_TOOLS: usize = 512;

/// A resource and its tools.
#[derive(Serialize)]
pub(in crate::http) struct CatalogueView {
    resource: ClientId,
    uri: ResourceUri,
    /// The number of listed tools that can't be used; null if the server was not queried.
    unusable: Option<usize>,
    /// What is wrong with each of them.
    unusable_tools: Vec<String>,
    tools: Vec<ToolView>,
}

/// A tool: its state, its catalogue entry, its accepted and observed definitions.
#[derive(Serialize)]
struct ToolView {
    name: ToolName,
    previous_state: ToolState,
    state: ToolState,
    offered: Option<CatalogueEntryView>,
    accepted: Option<ObservedDefinitionView>,
    accepted_by: Option<String>,
    observed: Option<ObservedDefinitionView>,
}

#[derive(Serialize)]
struct CatalogueEntryView {
    scope: ScopeToken,
    effect: Effect,
    risk: Risk,
    data_class: Option<String>,
}

/// A definition as listed by the server. Its text is untrusted.
#[derive(Serialize)]
struct ObservedDefinitionView {
    digest: ToolDigest,
    definition: Option<Box<RawValue>>,
    at: String,
}

impl From<ObservedDefinition> for ObservedDefinitionView {
    fn from(observed: ObservedDefinition) -> Self {
        Self {
            digest: observed.digest,
            definition: RawValue::from_string(observed.definition).ok(),
            at: observed.at.to_rfc3339(),
        }
    }
}

impl From<Catalogue> for CatalogueView {
    fn from(catalogue: Catalogue) -> Self {
        let view = |tool: &ToolDiff| {
            let offered = catalogue.find_offered_tool(tool).map(|entry| CatalogueEntryView {
                scope: entry.scope.clone(),
                effect: entry.effect,
                risk: entry.risk,
                data_class: entry.data_class.clone(),
            });
            let record = tool.record.as_ref();
            ToolView {
                name: tool.tool.clone(),
                previous_state: tool.previous_state,
                state: tool.state,
                offered,
                accepted: record.and_then(|record| record.accepted.clone()).map(Into::into),
                accepted_by: record.and_then(|record| record.accepted_by.clone()),
                observed: record.and_then(|record| record.observed.clone()).map(Into::into),
            }
        };
        Self {
            tools: catalogue.tools.iter().map(view).collect(),
            unusable: catalogue.unusable.as_ref().map(Vec::len),
            unusable_tools: catalogue.unusable.iter().flatten().map(ToString::to_string).collect(),
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
    /// Whether to return the difference without applying it.
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
    let mode = if body.dry_run { ImportMode::DryRun } else { ImportMode::Apply };
    Ok(Json(app.service.import_catalogue(&admin.identity(), &id, mode, &cx).await?.into()))
}

/// The body of `POST /v1/admin/resources/{id}/catalogue/accept`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct AcceptBody {
    tools: Vec<AcceptedToolBody>,
}

/// A tool with an acceptable definition. A scope and an effect also add the tool to the catalogue.
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
                    "a tool needs `scope` and `effect` to be added to the catalogue",
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
        let rule = "must be 1 to 512 tools, each with the digest of the reviewed definition";
        return Err(RequestError::InvalidParameter("tools", rule).into());
    }
    let acceptances = body.tools.into_iter().map(AcceptedToolBody::into_acceptance).collect::<Result<Vec<_>, _>>()?;
    Ok(Json(app.service.accept_tools(Actor::Admin(&admin), &id, &acceptances, &cx).await?.into()))
}
